//! MySQL's protocol: packets, and the answers to statements.
//!
//! Every length and count is a claim of the server. Memory grows with the bytes that came and never by what was announced,
//! and whatever is read has a bound. What packets hold is taken apart by `mysql_common`, where it stands any bytes.

use std::io::Error;
use std::sync::Arc;

use mysql_common::constants::{ColumnType, Command};
use mysql_common::io::ParseBuf;
use mysql_common::packets::{Column, ComStmtClose, ComStmtExecuteRequestBuilder, StmtPacket};
use mysql_common::proto::{Binary, MySerialize};
use mysql_common::row::RowDeserializer;
use mysql_common::value::ServerSide;
use mysql_common::{Row, Value};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::error::{Code, Failure};
use crate::fetch::database::tls;
use crate::fetch::place::no_tls;

/// A packet of this length goes on in the next one.
const PART: usize = 0xff_ffff;
/// Most bytes that are allocated before they came.
const AHEAD: usize = 64 * 1024;
/// Most columns that MySQL has.
const COLUMNS: u64 = 4096;
/// Most bytes of what describes the columns. Their names come again in the JSON of each row.
const DESCRIPTIONS: usize = 4 * 1024 * 1024;

pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection. After a failure it is good for nothing.
pub struct Wire {
    stream: BufReader<Box<dyn Stream>>,
    /// What the next packet is numbered with, whoever sends it.
    number: u8,
    packet: Vec<u8>,
    /// Bytes of the longest packet.
    most: usize,
}

pub struct Statement {
    id: u32,
    pub columns: Arc<[Column]>,
}

impl Wire {
    pub fn new(stream: Box<dyn Stream>, most: usize) -> Wire {
        Wire {
            stream: BufReader::with_capacity(AHEAD, stream),
            number: 0,
            packet: Vec::new(),
            most,
        }
    }

    /// Goes on with the connection in TLS.
    pub async fn secured(self, host: &str, ca: Option<&str>) -> Result<Wire, Failure> {
        // What came in clear text must not count as said in TLS.
        self.check_silence()?;
        let name = ServerName::try_from(host.to_owned()).map_err(tls::no_name)?;
        let connector = TlsConnector::from(Arc::new(tls::config(ca)?));
        let stream = connector.connect(name, self.stream.into_inner()).await;
        let stream = stream.map_err(lost)?;
        Ok(Wire {
            number: self.number,
            ..Wire::new(Box::new(stream), self.most)
        })
    }

    /// Nothing may have come that nobody asked for.
    fn check_silence(&self) -> Result<(), Failure> {
        match self.stream.buffer() {
            [] => Ok(()),
            _ => Err(strange()),
        }
    }

    /// A packet, in however many parts it comes. `None`: it is longer than that.
    pub async fn read(&mut self, most: usize) -> Result<Option<&[u8]>, Failure> {
        self.packet.clear();
        loop {
            let mut head = [0; 4];
            self.stream.read_exact(&mut head).await.map_err(lost)?;
            let [a, b, c, number] = head;
            if number != self.number {
                return Err(strange());
            }
            self.number = number.wrapping_add(1);
            let length = u32::from_le_bytes([a, b, c, 0]) as usize;
            if self.packet.len() + length > most {
                return Ok(None);
            }
            self.take(length).await?;
            if length < PART {
                break;
            }
        }
        match self.packet.as_slice() {
            [0xff, low, high, ..] => Err(refused(u16::from_le_bytes([*low, *high]))),
            [0xff, ..] => Err(strange()),
            packet => Ok(Some(packet)),
        }
    }

    async fn take(&mut self, mut length: usize) -> Result<(), Failure> {
        while length > 0 {
            self.packet.reserve(length.min(AHEAD));
            let mut part = (&mut self.stream).take(length as u64);
            let came = part.read_buf(&mut self.packet).await.map_err(lost)?;
            if came == 0 {
                return Err(strange());
            }
            length -= came;
        }
        Ok(())
    }

    #[cfg(test)]
    pub fn allocated(&self) -> usize {
        self.packet.capacity()
    }

    pub async fn write(&mut self, body: &[u8]) -> Result<(), Failure> {
        if body.len() >= PART {
            return Err(too_long());
        }
        let [a, b, c, ..] = body.len().to_le_bytes();
        // It may hold a password.
        let packet = Zeroizing::new([&[a, b, c, self.number], body].concat());
        self.number = self.number.wrapping_add(1);
        self.stream.write_all(&packet).await.map_err(lost)?;
        self.stream.flush().await.map_err(lost)
    }

    async fn command(&mut self, body: &[u8]) -> Result<(), Failure> {
        self.check_silence()?;
        self.number = 0;
        self.write(body).await
    }

    /// A statement that has no rows.
    pub async fn run(&mut self, text: &str) -> Result<(), Failure> {
        self.command(&with(Command::COM_QUERY, text)).await?;
        match self.answer().await? {
            0 => Ok(()),
            _ => Err(strange()),
        }
    }

    /// `values`: how many will be given.
    pub async fn prepare(&mut self, text: &str, values: usize) -> Result<Statement, Failure> {
        self.command(&with(Command::COM_STMT_PREPARE, text)).await?;
        let head = self.read(self.most).await?.ok_or_else(too_large)?;
        let head: StmtPacket = ParseBuf(head).parse(()).map_err(|_| strange())?;
        if usize::from(head.num_params()) != values {
            return Err(Failure::new(
                Code::RequestRefused,
                "the query has a \"?\" that no value is given for",
            ));
        }
        let columns = counted(head.num_columns().into())?;
        self.describe(values).await?;
        Ok(Statement {
            id: head.statement_id(),
            columns: self.describe(columns).await?,
        })
    }

    /// The columns of the rows that follow: see [`Wire::row`].
    pub async fn execute(
        &mut self,
        statement: &Statement,
        values: &[Value],
    ) -> Result<Arc<[Column]>, Failure> {
        let (request, is_long) = ComStmtExecuteRequestBuilder::new(statement.id).build(values);
        // Its texts would have to be sent before it.
        if is_long {
            return Err(too_long());
        }
        self.command(&bytes(&request)).await?;
        match self.answer().await? {
            0 => Err(strange()),
            columns => self.describe(columns).await,
        }
    }

    /// How many columns the rows have that follow, 0: no rows do.
    async fn answer(&mut self) -> Result<usize, Failure> {
        let head = self.read(self.most).await?.ok_or_else(too_large)?;
        if head.first() == Some(&0xfb) {
            return Err(Failure::new(
                Code::RequestRefused,
                "the server asked for a file of this machine; it gets none",
            ));
        }
        let columns = ParseBuf(head).checked_eat_lenenc_int();
        counted(columns.ok_or_else(strange)?)
    }

    /// So many columns, of a row or of what a statement is given.
    async fn describe(&mut self, count: usize) -> Result<Arc<[Column]>, Failure> {
        let mut columns = Vec::new();
        let mut left = self.most.min(DESCRIPTIONS);
        for _ in 0..count {
            let packet = self.read(left).await?.ok_or_else(too_many)?;
            left -= packet.len();
            columns.push(column(packet)?);
        }
        if count > 0 {
            let end = self.read(self.most).await?;
            end.filter(|end| is_end(end)).ok_or_else(strange)?;
        }
        Ok(columns.into())
    }

    /// The next row of what was executed last, until there is none.
    pub async fn row(&mut self, columns: &Arc<[Column]>) -> Result<Option<Row>, Failure> {
        match self.read(self.most).await?.ok_or_else(too_large)? {
            packet if is_end(packet) => Ok(None),
            packet => row(packet, columns).map(Some),
        }
    }

    pub async fn close(&mut self, statement: &Statement) -> Result<(), Failure> {
        self.command(&bytes(&ComStmtClose::new(statement.id))).await
    }

    /// Says good-bye, so that the server's log tells of no broken connection.
    pub async fn quit(&mut self) -> Result<(), Failure> {
        self.command(&[Command::COM_QUIT as u8]).await
    }
}

fn with(command: Command, text: &str) -> Vec<u8> {
    [&[command as u8], text.as_bytes()].concat()
}

pub fn bytes(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}

/// So many columns, if there can be so many.
fn counted(columns: u64) -> Result<usize, Failure> {
    match columns {
        0..=COLUMNS => Ok(columns as usize),
        _ => Err(too_many()),
    }
}

/// What ends descriptions, and rows. A row that begins so is a longer one.
fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

pub(super) fn column(packet: &[u8]) -> Result<Column, Failure> {
    let column: Column = ParseBuf(packet).parse(()).map_err(|_| strange())?;
    match column.column_type() {
        // Of a server's own files, and never sent: the library would panic at a value.
        ColumnType::MYSQL_TYPE_TIMESTAMP2
        | ColumnType::MYSQL_TYPE_DATETIME2
        | ColumnType::MYSQL_TYPE_TIME2
        | ColumnType::MYSQL_TYPE_TYPED_ARRAY
        | ColumnType::MYSQL_TYPE_UNKNOWN => Err(strange()),
        _ => Ok(column),
    }
}

pub(super) fn row(packet: &[u8], columns: &Arc<[Column]>) -> Result<Row, Failure> {
    let row = ParseBuf(packet).parse::<RowDeserializer<ServerSide, Binary>>(columns.clone());
    match (packet.first(), row) {
        (Some(0), Ok(row)) => Ok(row.into()),
        _ => Err(another_row()),
    }
}

/// The server's text may hold anything: an error is known by its number.
fn refused(number: u16) -> Failure {
    let (code, what) = meaning(number);
    Failure::new(code, format!("error {number} ({what})"))
}

fn lost(error: Error) -> Failure {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(tls) => Failure::new(Code::TlsFailed, no_tls(Some(tls))),
        None => strange(),
    }
}

pub fn strange() -> Failure {
    Failure::new(
        Code::ConnectFailed,
        "the connection ended, or the server does not speak MySQL's protocol",
    )
}

pub fn another_row() -> Failure {
    Failure::new(
        Code::UnexpectedShape,
        "a row does not match its column descriptions",
    )
}

pub fn too_large() -> Failure {
    Failure::new(
        Code::ResponseTooLarge,
        "a row is larger than a response may be",
    )
}

fn too_many() -> Failure {
    Failure::new(
        Code::ResponseTooLarge,
        "the server describes more columns than a row can have",
    )
}

fn too_long() -> Failure {
    Failure::new(
        Code::RequestRefused,
        "the statement and its values are longer than a packet can be",
    )
}

fn meaning(number: u16) -> (Code, &'static str) {
    match number {
        1045 | 1698 | 1130 => (
            Code::CredentialsRejected,
            "the server refuses this user, password or client address",
        ),
        1044 | 1142 | 1143 | 1227 => (Code::PermissionMissing, "this user may not read the table"),
        1049 => (Code::NotFound, "the database does not exist"),
        1146 => (Code::NotFound, "the table does not exist"),
        1054 => (Code::NotFound, "the column does not exist"),
        1969 | 3024 => (
            Code::RequestTimeout,
            "the statement took longer than config's \"statement_timeout\"; create an index on the cursor and the key",
        ),
        1792 => (
            Code::RequestRefused,
            "the query writes; only SELECT is allowed",
        ),
        1060 => (
            Code::UnexpectedShape,
            "two columns of the query have one name; give one of them a name of its own, with AS",
        ),
        1040 | 1053 | 1158..=1161 | 1203 | 1205 | 1213 | 1226 | 1927 => (
            Code::ServerError,
            "the server cannot run the statement at the moment",
        ),
        1153 => (
            Code::ResponseTooLarge,
            "a row is larger than a packet may be",
        ),
        _ => (Code::RequestRefused, "the server refused the statement"),
    }
}
