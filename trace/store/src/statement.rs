//! One compiled statement on a connection's raw handle: the driver hands every row over a channel and names every
//! column anew, which costs several times what SQLite takes to find the row.
#![expect(
    unsafe_code,
    reason = "compiling, binding, stepping and reading columns are C functions of SQLite"
)]

use std::{
    borrow::Cow,
    ffi::{CStr, c_char, c_int},
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};

use libsqlite3_sys as ffi;
use sqlx::sqlite::LockedSqliteHandle;

use crate::Value;

/// How texts are given to SQLite.
#[expect(clippy::cast_possible_truncation, reason = "it is 1")]
const UTF8: u8 = ffi::SQLITE_UTF8 as u8;

/// What SQLite says when it refuses.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its primary result code.
    pub(crate) code: i32,
    pub(crate) message: String,
    /// The byte of the text that it is about.
    pub(crate) offset: Option<usize>,
}

/// A compiled statement, released when it is dropped. While it lives nobody else can use the connection.
pub(crate) struct Statement<'h> {
    raw: NonNull<ffi::sqlite3_stmt>,
    handle: PhantomData<&'h mut ()>,
}

/// One row of a [`scan`](crate::Reader::scan). Columns are counted from 0; whatever is not of the type that is asked
/// for, or not there, is `None`.
pub struct Row<'r> {
    raw: NonNull<ffi::sqlite3_stmt>,
    columns: c_int,
    statement: PhantomData<&'r ()>,
}

impl<'h> Statement<'h> {
    /// Compiles the first statement of a text; there is none when the text is a comment or a semicolon. Also gives the
    /// bytes that were read.
    pub(crate) fn compile(
        handle: &'h mut LockedSqliteHandle<'_>,
        sql: &str,
    ) -> Result<(Option<Self>, usize), Failure> {
        let Ok(length) = c_int::try_from(sql.len()) else {
            return Err(Failure {
                code: ffi::SQLITE_TOOBIG,
                message: "the query is too long".to_owned(),
                offset: None,
            });
        };
        let db = handle.as_raw_handle().as_ptr();
        let (mut raw, mut tail) = (ptr::null_mut(), ptr::null());
        // SAFETY: `db` is open, and the locked handle keeps the driver's thread from using it; `sql` has `length`
        // readable bytes, and SQLite reads no further; both results are written before they are read.
        let code =
            unsafe { ffi::sqlite3_prepare_v2(db, sql.as_ptr().cast(), length, &raw mut raw, &raw mut tail) };
        if code != ffi::SQLITE_OK {
            // SAFETY: `db` is open, and the error belongs to the call just made on it.
            return Err(unsafe { failure(db, code) });
        }
        let read = (tail as usize)
            .saturating_sub(sql.as_ptr() as usize)
            .min(sql.len());
        let statement = NonNull::new(raw).map(|raw| Self {
            raw,
            handle: PhantomData,
        });
        Ok((statement, read))
    }

    pub(crate) fn only_reads(&self) -> bool {
        // SAFETY: the statement is compiled and not yet released.
        unsafe { ffi::sqlite3_stmt_readonly(self.raw.as_ptr()) != 0 }
    }

    /// Names of the columns.
    pub(crate) fn columns(&self) -> Vec<String> {
        (0..self.column_count())
            .map(|column| {
                // SAFETY: the statement is compiled and the column exists; its name stays valid until the statement
                // is released.
                unsafe { copied(ffi::sqlite3_column_name(self.raw.as_ptr(), column)) }.unwrap_or_default()
            })
            .collect()
    }

    fn column_count(&self) -> c_int {
        // SAFETY: the statement is compiled and not yet released.
        unsafe { ffi::sqlite3_column_count(self.raw.as_ptr()) }
    }

    /// How many values the statement has places for.
    pub(crate) fn places(&self) -> usize {
        // SAFETY: the statement is compiled and not yet released.
        let places = unsafe { ffi::sqlite3_bind_parameter_count(self.raw.as_ptr()) };
        usize::try_from(places).unwrap_or(0)
    }

    /// Puts a value in a place, counted from 1, before the first step.
    pub(crate) fn bind(&mut self, place: usize, value: &Value) -> Result<(), Failure> {
        let (raw, place) = (self.raw.as_ptr(), c_int::try_from(place).unwrap_or(c_int::MAX));
        // SAFETY: the statement is compiled; SQLite refuses a place that does not exist, and copies text and bytes
        // (`SQLITE_TRANSIENT`) out of slices of the length that it is told.
        let code = unsafe {
            match value {
                Value::Null => ffi::sqlite3_bind_null(raw, place),
                Value::Integer(number) => ffi::sqlite3_bind_int64(raw, place, *number),
                Value::Real(number) => ffi::sqlite3_bind_double(raw, place, *number),
                Value::Text(text) => ffi::sqlite3_bind_text64(
                    raw,
                    place,
                    text.as_ptr().cast(),
                    text.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                    UTF8,
                ),
                Value::Blob(bytes) => ffi::sqlite3_bind_blob64(
                    raw,
                    place,
                    bytes.as_ptr().cast(),
                    bytes.len() as u64,
                    ffi::SQLITE_TRANSIENT(),
                ),
            }
        };
        self.checked(code)
    }

    /// The next row; there is none at the end.
    pub(crate) fn step(&mut self) -> Result<Option<Row<'_>>, Failure> {
        // SAFETY: the statement is compiled and not yet released, and no row of an earlier step is borrowed.
        match unsafe { ffi::sqlite3_step(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(Some(Row {
                raw: self.raw,
                columns: self.column_count(),
                statement: PhantomData,
            })),
            ffi::SQLITE_DONE => Ok(None),
            code => self.checked(code).map(|()| None),
        }
    }

    fn checked(&self, code: c_int) -> Result<(), Failure> {
        if code == ffi::SQLITE_OK {
            return Ok(());
        }
        // SAFETY: the statement belongs to an open connection, and the error to the call just made on it.
        Err(unsafe { failure(ffi::sqlite3_db_handle(self.raw.as_ptr()), code) })
    }
}

impl Drop for Statement<'_> {
    fn drop(&mut self) {
        // SAFETY: the statement is released once, here. The result repeats an earlier error and says nothing new.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

impl Row<'_> {
    /// A whole number.
    #[must_use]
    pub fn int(&self, column: usize) -> Option<i64> {
        let (column, kind) = self.kind(column)?;
        // SAFETY: the statement is at a row, and the column exists.
        (kind == ffi::SQLITE_INTEGER).then(|| unsafe { ffi::sqlite3_column_int64(self.raw.as_ptr(), column) })
    }

    /// A number, also a whole one.
    #[must_use]
    pub fn real(&self, column: usize) -> Option<f64> {
        let (column, kind) = self.kind(column)?;
        // SAFETY: the statement is at a row, and the column exists.
        matches!(kind, ffi::SQLITE_FLOAT | ffi::SQLITE_INTEGER)
            .then(|| unsafe { ffi::sqlite3_column_double(self.raw.as_ptr(), column) })
    }

    /// A text; what is not UTF-8 in it is replaced, as everywhere.
    #[must_use]
    pub fn text(&self, column: usize) -> Option<Cow<'_, str>> {
        let (column, kind) = self.kind(column)?;
        if kind != ffi::SQLITE_TEXT {
            return None;
        }
        // SAFETY: the statement is at a row, and the column exists. The bytes stay where they are until the next step,
        // which needs what this row borrows, or until the column is asked for in another type, which `kind` prevents.
        let bytes = unsafe {
            let start = ffi::sqlite3_column_text(self.raw.as_ptr(), column);
            let length = usize::try_from(ffi::sqlite3_column_bytes(self.raw.as_ptr(), column)).ok()?;
            // Null when SQLite has no memory to convert it.
            slice::from_raw_parts(NonNull::new(start.cast_mut())?.as_ptr().cast_const(), length)
        };
        // Looking at nearly every text once as a whole is much faster than looking for what is wrong in it.
        Some(str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed))
    }

    /// The type of a column's value, if there is such a column: SQLite does not check that.
    fn kind(&self, column: usize) -> Option<(c_int, c_int)> {
        let column = c_int::try_from(column)
            .ok()
            .filter(|column| *column < self.columns)?;
        // SAFETY: the statement is at a row, and the column exists.
        Some((column, unsafe {
            ffi::sqlite3_column_type(self.raw.as_ptr(), column)
        }))
    }
}

impl std::fmt::Debug for Row<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row").field("columns", &self.columns).finish()
    }
}

/// # Safety
/// `db` is open and used by nobody else; `code` is the result of the last call on it.
unsafe fn failure(db: *mut ffi::sqlite3, code: c_int) -> Failure {
    // SAFETY: by the condition above. The message is a NUL-terminated text that stays valid until the next call on
    // `db`, and is copied before that.
    let (offset, message) = unsafe { (ffi::sqlite3_error_offset(db), copied(ffi::sqlite3_errmsg(db))) };
    Failure {
        code: code & 0xff,
        message: message.unwrap_or_default(),
        offset: usize::try_from(offset).ok(),
    }
}

/// # Safety
/// `text` is null or points to a NUL-terminated text that stays valid during the call.
pub(crate) unsafe fn copied(text: *const c_char) -> Option<String> {
    // SAFETY: by the condition above.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}
