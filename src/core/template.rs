//! Templates: filled in by the api part.
