//! A jsonb argument as its text. pgrx's own type parses the value before its size and depth can be checked, and raises an
//! internal error for values that its parser refuses.

use std::ffi::CStr;

use connector_service_core::secret::Secret;
use connector_service_core::source::size::{LARGEST_CONFIG, Size};
use pgrx::callconv::{Arg, ArgAbi};
use pgrx::datum::FromDatum;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};
use pgrx::prelude::*;
use serde_json::Value;

/// Largest jsonb, in PostgreSQL's representation, that is converted to text. Larger: memory is spent on values that are
/// refused anyway. Smaller: a config within its bounds could be refused, because each value has a header.
const LARGEST: usize = 64 * LARGEST_CONFIG;

/// Text that is wiped when it is dropped: it may hold credentials.
pub struct Document(Option<Secret>);

impl Document {
    /// The size of the document. `None`: it is too large to be converted.
    pub fn size(&self) -> Option<Size> {
        self.0.as_ref().map(|text| Size::of(text.expose()))
    }

    /// The parsed document. `None`: it is too large, or nested deeper than the parser allows.
    pub fn value(&self) -> Option<Value> {
        serde_json::from_slice(self.0.as_ref()?.expose()).ok()
    }
}

impl FromDatum for Document {
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        is_null: bool,
        _: pg_sys::Oid,
    ) -> Option<Document> {
        if is_null {
            return None;
        }
        // SAFETY: the datum is a jsonb, because SQL knows the argument as one. Both copies belong to the call's memory.
        unsafe {
            let jsonb = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
            let size = pgrx::varsize_any(jsonb);
            if size > LARGEST {
                return Some(Document(None));
            }
            let text = pg_sys::JsonbToCString(
                std::ptr::null_mut(),
                &raw mut (*jsonb.cast::<pg_sys::Jsonb>()).root,
                size.try_into().unwrap_or(i32::MAX),
            );
            let bytes = CStr::from_ptr(text).to_bytes();
            let document = Document(Some(Secret::new(bytes.to_vec())));
            std::ptr::write_bytes(text, 0, bytes.len());
            pg_sys::pfree(text.cast());
            Some(document)
        }
    }
}

// SAFETY: gives what the datum of the argument is, or NULL.
unsafe impl<'fcx> ArgAbi<'fcx> for Document {
    unsafe fn unbox_arg_unchecked(arg: Arg<'_, 'fcx>) -> Self {
        // SAFETY: the caller's promise. A NULL becomes a document without text, which nobody asks for.
        unsafe { arg.unbox_arg_using_from_datum().unwrap_or(Document(None)) }
    }
}

// SAFETY: the SQL type is the one that the datum is read as.
unsafe impl SqlTranslatable for Document {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Document);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("jsonb"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("jsonb")));
}
