//! How a run ended, as a whole and for each of its streams.

use std::sync::Arc;

use super::trace::Trace;
use crate::error::{Class, Code, Failure};

/// How a run ended.
#[derive(Clone)]
pub struct Outcome {
    pub result: Result<(), Failure>,
    pub retry: Retry,
    /// Whether a stream was read to its end although the run failed: the connector works in part.
    pub is_partial: bool,
    pub streams: Vec<StreamEnd>,
    /// The last requests of the run.
    pub trace: Option<Arc<Trace>>,
}

/// What follows a run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The run goes on after a pause.
    Pause,
    /// Another run, after a pause that grows.
    Backoff,
    /// Another run at the next slot: some streams work, and for the others a person must do something.
    Slot,
    /// A person must do something.
    Mend,
}

impl Retry {
    pub fn of(failure: &Failure) -> Retry {
        match (failure.code, failure.code.class()) {
            (Code::RateLimited | Code::Locked, _) => Retry::Pause,
            (_, Class::Transient) => Retry::Backoff,
            (_, Class::Mend) => Retry::Mend,
        }
    }
}

/// A failure is of the whole run.
impl From<Result<(), Failure>> for Outcome {
    fn from(result: Result<(), Failure>) -> Outcome {
        Outcome {
            retry: result.as_ref().err().map_or(Retry::Backoff, Retry::of),
            result,
            is_partial: false,
            streams: Vec::new(),
            trace: None,
        }
    }
}

/// How a stream ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEnd {
    pub stream: String,
    pub end: End,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Read,
    /// The vendor does not have the stream.
    Absent,
    Failed(Failure),
    /// Not asked for, or not to the end, because of what happened to another stream.
    Skipped(Failure),
    /// The run goes on with it.
    Waiting,
}

/// Longest part of a failed stream in the message of its run, in characters, and how many streams it names. The rest is in
/// `sync_runs.streams`.
const LONGEST_MESSAGE: usize = 300;
const MOST_NAMED: usize = 8;

impl Outcome {
    /// What the ends of all streams come to. `stopped`: the stream whose failure ended the run.
    pub fn of_streams(streams: Vec<StreamEnd>, stopped: Option<&str>) -> Outcome {
        let failed: Vec<(&str, &Failure)> = streams
            .iter()
            .filter_map(|ended| match &ended.end {
                End::Failed(failure) => Some((ended.stream.as_str(), failure)),
                _ => None,
            })
            .collect();
        let is_partial = streams.iter().any(|ended| ended.end == End::Read);
        let of_all = failed.iter().find(|(stream, _)| Some(*stream) == stopped);
        let is_mend = |(_, failure): &&(&str, &Failure)| failure.code.class() == Class::Mend;
        // What a person must do something about is said first.
        let Some((_, worst)) = of_all
            .or_else(|| failed.iter().find(is_mend))
            .or(failed.first())
        else {
            return Outcome {
                streams,
                ..Ok(()).into()
            };
        };
        let some_may_pass = failed
            .iter()
            .any(|(_, failure)| failure.code.class() == Class::Transient);
        let retry = match (of_all, some_may_pass, is_partial) {
            (Some((_, failure)), ..) => Retry::of(failure),
            (None, true, _) => Retry::Backoff,
            (None, false, true) => Retry::Slot,
            (None, false, false) => Retry::Mend,
        };
        let message = message(&failed, worst, streams.len());
        let failure = Failure {
            message,
            retry_after: failed.iter().filter_map(|(_, f)| f.retry_after).max(),
            ..(*worst).clone()
        };
        Outcome {
            result: Err(failure),
            retry,
            // A failure that ends the run is nobody's own.
            is_partial: is_partial && of_all.is_none(),
            streams,
            trace: None,
        }
    }
}

/// Names the streams that failed.
fn message(failed: &[(&str, &Failure)], worst: &Failure, count: usize) -> String {
    let cut = |text: &str| match text.char_indices().nth(LONGEST_MESSAGE) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    };
    if let [(stream, failure)] = failed {
        return of_stream(stream, &failure.message);
    }
    let (mut first, mut others) = (Vec::new(), Vec::new());
    for (stream, failure) in failed {
        let text = cut(&of_stream(stream, &failure.message));
        match std::ptr::eq(*failure, worst) {
            true => first.push(text),
            false => others.push(text),
        }
    }
    first.append(&mut others);
    let more = first.len().saturating_sub(MOST_NAMED);
    first.truncate(MOST_NAMED);
    if more > 0 {
        first.push(format!("and {more} more"));
    }
    let named = first.join("; ");
    format!("{} of {count} streams failed: {named}", failed.len())
}

/// A text about a stream, which names it once.
pub fn of_stream(stream: &str, text: &str) -> String {
    let name = format!("stream \"{stream}\": ");
    format!("{name}{}", text.replace(&name, ""))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn failed(stream: &str, code: Code) -> StreamEnd {
        let failure = Failure::new(code, format!("a.example: {code:?}"));
        let stream = stream.to_owned();
        let end = End::Failed(failure);
        StreamEnd { stream, end }
    }

    fn read(stream: &str) -> StreamEnd {
        let stream = stream.to_owned();
        let end = End::Read;
        StreamEnd { stream, end }
    }

    /// The code and message of the run, what follows, and whether it worked in part.
    fn of(streams: Vec<StreamEnd>, stopped: Option<&str>) -> (Code, String, Retry, bool) {
        let outcome = Outcome::of_streams(streams, stopped);
        let failure = outcome.result.unwrap_err();
        (
            failure.code,
            failure.message,
            outcome.retry,
            outcome.is_partial,
        )
    }

    #[test]
    fn the_end_of_a_run_is_what_its_streams_come_to() {
        use Code::{CredentialsRejected, NotFound, RateLimited, ServerError};
        assert!(
            Outcome::of_streams(vec![read("a"), read("b")], None)
                .result
                .is_ok()
        );
        let one = "stream \"a\": a.example: ServerError".to_owned();
        assert_eq!(
            of(vec![failed("a", ServerError)], None),
            (ServerError, one.clone(), Retry::Backoff, false)
        );
        assert_eq!(
            of(vec![failed("a", ServerError), read("b")], None),
            (ServerError, one, Retry::Backoff, true)
        );
        let (code, _, retry, is_partial) = of(vec![read("b"), failed("a", NotFound)], None);
        assert_eq!(
            (code, retry, is_partial),
            (NotFound, Retry::Slot, true),
            "others work"
        );
        let (code, _, retry, _) = of(vec![failed("a", NotFound), failed("b", NotFound)], None);
        assert_eq!((code, retry), (NotFound, Retry::Mend), "nothing works");
        // What a person must mend is said first; what may pass is tried soon.
        assert_eq!(
            of(vec![read("a"), failed("b", ServerError), failed("c", NotFound)], None),
            (
                NotFound,
                "2 of 3 streams failed: stream \"c\": a.example: NotFound; stream \"b\": a.example: ServerError".into(),
                Retry::Backoff,
                true
            )
        );
        let (code, message, retry, is_partial) = of(
            vec![
                read("a"),
                failed("b", NotFound),
                failed("c", CredentialsRejected),
            ],
            Some("c"),
        );
        assert_eq!(
            (code, retry, is_partial),
            (CredentialsRejected, Retry::Mend, false)
        );
        assert!(
            message.starts_with("2 of 3 streams failed: stream \"c\": "),
            "{message}"
        );
        let (_, _, retry, _) = of(vec![read("a"), failed("b", RateLimited)], Some("b"));
        assert_eq!(retry, Retry::Pause);
    }

    #[test]
    fn a_message_is_bounded_and_names_a_stream_once() {
        let many: Vec<StreamEnd> = (0..1_000)
            .map(|number| StreamEnd {
                stream: number.to_string(),
                end: End::Failed(Failure::new(Code::NotFound, "x".repeat(5_000))),
            })
            .collect();
        let (_, message, ..) = of(many, None);
        assert!(message.len() < 3_000, "{}", message.len());
        assert!(message.ends_with("; and 992 more"), "{message}");
        for text in ["no", "stream \"s\": no", "stream \"s\": stream \"s\": no"] {
            assert_eq!(of_stream("s", text), "stream \"s\": no");
        }
        assert_eq!(
            of_stream("s", "127.0.0.1: stream \"s\": no"),
            "stream \"s\": 127.0.0.1: no"
        );
    }
}
