//! Answers that are odd in one way each, as a table: what the engine does with them, for every type that asks by HTTP.
//!
//! A row has an odd answer in the place of a sound one, and what is right for it: the records are read, there are none, it
//! is asked again, it fails with a code, or it waits. Each row runs through the whole engine, over a socket, for type `api`
//! and for every vendor that the oddity can occur with; the sound answers are the vendors' own, out of `source/pages`.

mod bodies;
mod empty;
mod errors;
mod framing;
mod links;
mod refusals;
mod tokens;
mod vendor;

use super::*;
use vendor::{Told, Vendor};

/// What is right for a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Is {
    /// All records, with one request.
    Read,
    /// A page without records that ends the pass.
    Empty,
    /// So many records with one request; the others are in quarantine.
    Some(usize, usize),
    /// Read when it is asked for again; fails with the code when it always comes.
    Again(Code),
    /// Fails at once.
    Fails(Code),
    /// Fails, after a new token was asked for.
    Renews(Code),
    /// Read, and then this is asked for; `None`: nothing.
    Follows(Option<&'static str>),
    /// Ends the run at once, to be taken up again after so many seconds.
    Waits(u64),
}

/// What the `api` type is told of its records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The body is the list.
    List,
    /// The list lies at "data".
    Data,
    /// As `List`, and the `Link` header leads on.
    Link,
}

/// Makes an odd answer out of a sound body; it is everything that is sent.
pub type Make = Box<dyn Fn(&str) -> Vec<u8> + Send + Sync>;

pub struct Row {
    pub about: String,
    pub make: Make,
    /// Right for `api`; `None`: it cannot occur there.
    pub api: Option<Is>,
    pub shape: Shape,
    /// Right for every vendor; `None`: it cannot occur there.
    pub vendors: Option<Is>,
    /// And for some of them.
    pub but: &'static [(&'static str, Is)],
    /// Whether the connection stays open behind the answer.
    pub stays: bool,
}

impl Row {
    /// The same for all.
    pub fn new(about: &str, is: Is, make: Make) -> Row {
        Row {
            about: about.to_owned(),
            make,
            api: Some(is),
            shape: Shape::List,
            vendors: Some(is),
            but: &[],
            stays: true,
        }
    }

    pub fn of_api(mut self) -> Row {
        self.vendors = None;
        self
    }

    pub fn vendors(mut self, is: Is) -> Row {
        self.vendors = Some(is);
        self
    }

    pub fn but(mut self, but: &'static [(&'static str, Is)]) -> Row {
        self.but = but;
        self
    }

    pub fn at_data(mut self) -> Row {
        self.shape = Shape::Data;
        self
    }

    fn right_for(&self, kind: &str) -> Option<Is> {
        let own = self.but.iter().find(|(name, _)| *name == kind);
        match (own, kind) {
            (Some((_, is)), _) => Some(*is),
            (None, "api") => self.api,
            (None, _) => self.vendors,
        }
    }
}

/// An answer with a length.
pub fn answer(status: &str, headers: &[&str], body: &[u8]) -> Vec<u8> {
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

pub const JSON: &str = "Content-Type: application/json";

/// Runs one row for one type. `Err`: what is not as it should be.
async fn judge(row: &Row, vendor: &Vendor, is: Is) -> Result<(), String> {
    let always = vendor.ask(row, usize::MAX).await;
    let code = always.result.as_ref().err().map(|failure| failure.code);
    let wait = always
        .result
        .as_ref()
        .err()
        .and_then(|failure| failure.retry_after);
    let found = (always.ids.len(), always.rejected, always.asked);
    let all = vendor.ids.len();
    let is_right = match is {
        Is::Read => code.is_none() && always.ids == vendor.ids && found == (all, 0, 1),
        Is::Empty => code.is_none() && found == (0, 0, 1) && always.ended && always.text.is_empty(),
        Is::Some(read, rejected) => code.is_none() && found == (read, rejected, 1),
        Is::Renews(right) => code == Some(right) && found == (0, 0, 2),
        Is::Follows(next) => {
            let then = always.paths.get(1).map(String::as_str);
            let count = always.ids.len();
            code.is_none() && then == next && count == all + usize::from(next.is_some())
        }
        Is::Fails(right) => code == Some(right) && found == (0, 0, 1),
        Is::Again(right) => code == Some(right) && found == (0, 0, 3),
        Is::Waits(seconds) => {
            code == Some(Code::RateLimited)
                && found == (0, 0, 1)
                && wait.map(|wait| wait.as_secs()) == Some(seconds)
        }
    };
    if !is_right {
        return Err(format!("always: {always:?}"));
    }
    check_words(&always)?;
    if is == Is::Read && !always.text.contains("café €") {
        return Err("the text of the records is not what was written".to_owned());
    }
    if let Is::Again(_) = is {
        let once = vendor.ask(row, 1).await;
        let is_right = once.result.is_ok() && once.ids == vendor.ids && once.asked == 2;
        is_right.then_some(()).ok_or(format!("once: {once:?}"))?;
    }
    Ok(())
}

/// What a failure says is ours: nothing that the server sent, and its stream once.
fn check_words(told: &Told) -> Result<(), String> {
    let Err(failure) = &told.result else {
        return Ok(());
    };
    let is_foreign = failure.message.contains("not_a_real_secret");
    let named = failure.message.matches("stream \"").count();
    match (is_foreign, named) {
        (false, 1) => Ok(()),
        _ => Err(format!("the message is {}", failure.message)),
    }
}

/// The whole table.
fn table() -> Vec<Row> {
    let mut rows = bodies::rows();
    rows.extend(framing::rows());
    rows.extend(refusals::rows());
    rows.extend(empty::rows());
    rows.extend(errors::rows());
    rows.extend(links::rows());
    rows
}

/// Runs the table for one type: how many rows were judged, and what is wrong.
async fn judge_all(kind: &'static str) -> (usize, Vec<String>) {
    let vendor = Vendor::start(kind).await;
    let (mut judged, mut wrong) = (0, Vec::new());
    for row in table() {
        let Some(is) = row.right_for(kind) else {
            continue;
        };
        judged += 1;
        if let Err(why) = judge(&row, &vendor, is).await {
            wrong.push(format!("{kind}: {}: {is:?}, but {why}", row.about));
        }
    }
    (judged, wrong)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_odd_answer_is_read_refused_or_asked_for_again_for_every_type() {
    let judging: Vec<_> = vendor::KINDS
        .into_iter()
        .map(|kind| tokio::spawn(judge_all(kind)))
        .collect();
    let (mut judged, mut wrong) = (0, Vec::new());
    for judging in judging {
        let (count, of_kind) = judging.await.unwrap();
        judged += count;
        wrong.extend(of_kind);
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(judged >= 2_000, "{judged} judged");
}

#[test]
fn the_table_has_more_than_two_hundred_rows_and_no_name_twice() {
    let rows = table();
    let count = rows.len() + tokens::count();
    assert!(count >= 400, "{count} rows");
    let names: std::collections::HashSet<&str> =
        rows.iter().map(|row| row.about.as_str()).collect();
    assert_eq!(names.len(), rows.len());
}
