//! One table of a snapshot as CSV (RFC 4180), as rows of `COPY`, or as SQL.

use std::path::Path;

use rusqlite::types::ValueRef;

use super::inserts::{EachInsert, Row};
use super::postgres::inspect::{literal, quote};
use super::postgres::restore::Origin;
use super::rows::{EachRow, copy_rows, values};
use super::sqlite;
use crate::catalogue::{Encoding, Table};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::restore::{StreamTarget, WriterTarget, copy_range, copy_stream, stream_of};

/// How a table is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a line of column names; NULL is nothing, an empty text is `""`.
    Csv,
    /// The text format of PostgreSQL's `COPY`.
    Copy,
    /// Statements that insert the rows.
    Sql,
}

/// Writes a table.
pub fn export(
    origin: &Origin<'_>,
    table: &Table,
    format: Format,
    temporary: &Path,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    if table.stream.is_empty() {
        let text =
            format!("{}.{} has no rows of its own: name its partitions", table.schema, table.name);
        return Err(Error::Usage(text));
    }
    match table.encoding {
        Encoding::Pages => from_sqlite(origin, table, format, temporary, target, progress),
        Encoding::Statements => from_statements(origin, table, format, target, progress),
        _ => from_copy(origin, table, format, target, progress),
    }
}

fn from_copy(
    origin: &Origin<'_>,
    table: &Table,
    format: Format,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    let mut writer = RowWriter::new(table, target);
    match format {
        Format::Copy => copy_rows(origin, table, writer.target, progress),
        Format::Csv => {
            writer.header()?;
            let mut each = EachRow::new(|row: &[u8]| writer.csv(&values(row)));
            copy_rows(origin, table, &mut each, progress)?;
            drop(each);
            writer.finish()
        }
        Format::Sql => {
            let columns = quoted_columns(&table.columns);
            let name = format!("{}.{}", quote(&table.schema), quote(&table.name));
            writer.text(&format!("COPY {name}{columns} FROM stdin;\n"))?;
            writer.finish()?;
            copy_rows(origin, table, writer.target, progress)?;
            writer.text("\\.\n")?;
            writer.finish()
        }
    }
}

fn quoted_columns(columns: &[String]) -> String {
    let quoted: Vec<String> = columns.iter().map(|column| quote(column)).collect();
    if quoted.is_empty() { String::new() } else { format!(" ({})", quoted.join(", ")) }
}

fn from_statements(
    origin: &Origin<'_>,
    table: &Table,
    format: Format,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    let stream = stream_of(origin.snapshot, &table.stream)?;
    let copy = |target: &mut dyn StreamTarget| {
        let mut ranges = table.data.iter();
        ranges.try_for_each(|range| {
            copy_range(origin.repository, stream, *range, target, progress)?;
            target.write(b"\n")
        })
    };
    if format == Format::Sql {
        return copy(target);
    }
    let mut writer = RowWriter::new(table, target);
    if format == Format::Csv {
        writer.header()?;
    }
    copy(&mut EachInsert::new(|row: &Row| match format {
        Format::Csv => writer.csv(row),
        _ => writer.copy(row),
    }))?;
    writer.finish()
}

fn from_sqlite(
    origin: &Origin<'_>,
    table: &Table,
    format: Format,
    temporary: &Path,
    target: &mut dyn StreamTarget,
    progress: &Progress,
) -> Result<()> {
    let io = |source| Error::Io {
        action: "make a file in",
        path: temporary.display().to_string(),
        source,
    };
    let file = tempfile::Builder::new().prefix("restow-sqlite-").tempfile_in(temporary);
    let file = file.map_err(io)?;
    let stream = stream_of(origin.snapshot, &table.stream)?;
    let mut pages =
        WriterTarget { writer: file.as_file(), name: file.path().display().to_string() };
    copy_stream(origin.repository, stream, &mut pages, progress)?;
    let failed = |error: rusqlite::Error| Error::Conflict(format!("{}: {error}", table.name));
    let connection = sqlite::open_copy(file.path()).map_err(failed)?;
    let columns: Vec<String> = table.columns.iter().map(|column| quote(column)).collect();
    let query = format!("SELECT {} FROM {}", columns.join(", "), quote(&table.name));
    let mut statement = connection.prepare(&query).map_err(failed)?;
    let mut rows = statement.query([]).map_err(failed)?;
    let mut writer = RowWriter::new(table, target);
    if format == Format::Csv {
        writer.header()?;
    }
    while let Some(row) = rows.next().map_err(failed)? {
        let mut values = Vec::new();
        for number in 0..table.columns.len() {
            values.push(row.get_ref(number).map_err(failed)?);
        }
        match format {
            Format::Csv => {
                let texts: Vec<Option<Vec<u8>>> = values.iter().map(text_of).collect();
                writer.csv(&texts)?;
            }
            Format::Sql => {
                let literals: Vec<String> = values.iter().map(literal_of).collect();
                let (name, columns) = (quote(&table.name), columns.join(", "));
                let values = literals.join(", ");
                writer.text(&format!("INSERT INTO {name} ({columns}) VALUES ({values});\n"))?;
            }
            Format::Copy => {
                let texts: Vec<Option<Vec<u8>>> = values.iter().map(text_of).collect();
                writer.copy(&texts)?;
            }
        }
    }
    writer.finish()
}

fn text_of(value: &ValueRef<'_>) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(number) => Some(number.to_string().into_bytes()),
        ValueRef::Real(number) => Some(number.to_string().into_bytes()),
        ValueRef::Text(text) => Some(text.to_vec()),
        ValueRef::Blob(bytes) => Some(format!("\\x{}", hex::encode(bytes)).into_bytes()),
    }
}

fn literal_of(value: &ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".to_owned(),
        ValueRef::Integer(number) => number.to_string(),
        // There is no literal for infinity; what is too large is read as that.
        ValueRef::Real(number) if number.is_infinite() => {
            if *number > 0.0 { "9e999" } else { "-9e999" }.to_owned()
        }
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            // A zero byte would end the statement.
            Ok(text) if !text.contains('\0') => format!("'{}'", text.replace('\'', "''")),
            _ => format!("CAST(x'{}' AS TEXT)", hex::encode(bytes)),
        },
        ValueRef::Blob(bytes) => format!("x'{}'", hex::encode(bytes)),
    }
}

/// A statement that inserts a row.
pub fn insert(name: &str, columns: &[String], row: &[Option<Vec<u8>>]) -> String {
    let texts = row.iter().map(|value| {
        value.as_ref().map_or("NULL".to_owned(), |text| literal(&String::from_utf8_lossy(text)))
    });
    let values: Vec<String> = texts.collect();
    format!(
        "INSERT INTO {name}{} OVERRIDING SYSTEM VALUE VALUES ({});",
        quoted_columns(columns),
        values.join(", ")
    )
}

/// Gathers rows before they are written.
struct RowWriter<'a> {
    table: &'a Table,
    target: &'a mut dyn StreamTarget,
    buffer: Vec<u8>,
}

/// Bytes that are gathered.
const BUFFER: usize = 64 << 10;

impl<'a> RowWriter<'a> {
    fn new(table: &'a Table, target: &'a mut dyn StreamTarget) -> Self {
        Self { table, target, buffer: Vec::new() }
    }

    fn header(&mut self) -> Result<()> {
        let columns = self.table.columns.iter().map(|column| Some(column.clone().into_bytes()));
        let columns: Vec<Option<Vec<u8>>> = columns.collect();
        self.csv(&columns)
    }

    fn csv(&mut self, values: &[Option<Vec<u8>>]) -> Result<()> {
        for (number, value) in values.iter().enumerate() {
            if number > 0 {
                self.buffer.push(b',');
            }
            let Some(value) = value else { continue };
            let is_plain = !value.is_empty()
                && !value.iter().any(|byte| matches!(byte, b',' | b'"' | b'\n' | b'\r'));
            if is_plain {
                self.buffer.extend_from_slice(value);
                continue;
            }
            self.buffer.push(b'"');
            for byte in value {
                if *byte == b'"' {
                    self.buffer.push(b'"');
                }
                self.buffer.push(*byte);
            }
            self.buffer.push(b'"');
        }
        self.end_row()
    }

    fn copy(&mut self, values: &[Option<Vec<u8>>]) -> Result<()> {
        for (number, value) in values.iter().enumerate() {
            if number > 0 {
                self.buffer.push(b'\t');
            }
            let Some(value) = value else {
                self.buffer.extend_from_slice(b"\\N");
                continue;
            };
            for byte in value {
                match byte {
                    b'\\' => self.buffer.extend_from_slice(b"\\\\"),
                    b'\n' => self.buffer.extend_from_slice(b"\\n"),
                    b'\r' => self.buffer.extend_from_slice(b"\\r"),
                    b'\t' => self.buffer.extend_from_slice(b"\\t"),
                    byte => self.buffer.push(*byte),
                }
            }
        }
        self.end_row()
    }

    fn end_row(&mut self) -> Result<()> {
        self.buffer.push(b'\n');
        if self.buffer.len() >= BUFFER { self.finish() } else { Ok(()) }
    }

    fn text(&mut self, text: &str) -> Result<()> {
        self.buffer.extend_from_slice(text.as_bytes());
        if self.buffer.len() >= BUFFER { self.finish() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        self.target.write(&buffer)
    }
}
