//! SQLite's authorizer and limits on a connection's raw handle, which the driver does not offer: the fence around
//! other people's SQL. A read-only connection alone still attaches other files, copies itself with VACUUM INTO and
//! makes temporary tables.
#![expect(
    unsafe_code,
    reason = "the authorizer and the limits are C functions of SQLite"
)]

use std::{
    ffi::{c_char, c_int, c_void},
    ptr,
};

use libsqlite3_sys as ffi;
use sqlx::sqlite::LockedSqliteHandle;

use crate::statement::{Statement, copied};

/// The longest text or blob that a query may make, bytes.
const MAX_LENGTH: usize = 8 << 20;
/// The most that one row of a result may hold, bytes. A few of them are under way before any is counted: in SQLite's
/// registers, copied from there, in the channel, being read. A row with two files of the greatest size that is edited has
/// room in it.
const MAX_ROW: usize = 32 << 20;

/// Why a query will not be run.
pub(crate) enum Refusal {
    /// SQLite's primary result code, its message, and the byte it is about.
    Sqlite {
        code: i32,
        message: String,
        offset: Option<usize>,
    },
    /// What was tried.
    Forbidden(String),
}

/// What a connection may do at most, whatever its SQL says.
const LIMITS: [(c_int, c_int); 4] = [
    (ffi::SQLITE_LIMIT_ATTACHED, 0),
    #[expect(clippy::cast_possible_truncation, reason = "8 MiB")]
    (ffi::SQLITE_LIMIT_LENGTH, MAX_LENGTH as c_int),
    // More than all views together have.
    (ffi::SQLITE_LIMIT_COLUMN, 128),
    // Matching takes time exponential in the wildcards, and cannot be interrupted.
    (ffi::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 512),
];

/// How long a text or blob may be in a query whose result has so many columns, bytes. A query for a few columns can have
/// the longest text that is stored.
pub(crate) fn max_length(columns: usize) -> usize {
    MAX_LENGTH.min(MAX_ROW / columns.max(1))
}

/// Confines a connection to reading, for good, and compiles a query under that rule. Gives the names of the columns
/// it will return.
pub(crate) fn confine(handle: &mut LockedSqliteHandle<'_>, sql: &str) -> Result<Vec<String>, Refusal> {
    let db = handle.as_raw_handle().as_ptr();
    for (limit, value) in LIMITS {
        // SAFETY: `db` is open, and the locked handle keeps the driver's thread from using it meanwhile.
        unsafe { ffi::sqlite3_limit(db, limit, value) };
    }
    let mut denied: Option<String> = None;
    // SAFETY: as above. SQLite keeps the pointer to `denied` until the second call replaces it, below and before
    // `denied` goes away, and uses it only inside calls that `compile` makes, on this thread.
    unsafe { ffi::sqlite3_set_authorizer(db, Some(authorize), ptr::from_mut(&mut denied).cast()) };
    let compiled = compile(handle, sql);
    // SAFETY: as above; a null pointer is what `authorize` expects when nobody asks for the reason.
    unsafe { ffi::sqlite3_set_authorizer(db, Some(authorize), ptr::null_mut()) };
    if let Some(what) = denied {
        return Err(Refusal::Forbidden(what));
    }
    let columns = compiled?;
    let length = c_int::try_from(max_length(columns.len())).unwrap_or(c_int::MAX);
    // SAFETY: as above.
    unsafe { ffi::sqlite3_limit(db, ffi::SQLITE_LIMIT_LENGTH, length) };
    Ok(columns)
}

/// Compiles what must be a single statement.
fn compile(handle: &mut LockedSqliteHandle<'_>, sql: &str) -> Result<Vec<String>, Refusal> {
    let syntax = |message: &str, offset| {
        Err(Refusal::Sqlite {
            code: ffi::SQLITE_ERROR,
            message: message.to_owned(),
            offset,
        })
    };
    if let Some(offset) = sql.find('\0') {
        return syntax("the query contains a NUL character", Some(offset));
    }
    let mut columns = None;
    let mut start = 0;
    while let Some(rest) = sql.get(start..).filter(|rest| !rest.is_empty()) {
        let (statement, length) = Statement::compile(handle, rest).map_err(|failure| Refusal::Sqlite {
            code: failure.code,
            message: failure.message,
            offset: failure.offset.map(|offset| start + offset),
        })?;
        if let Some(statement) = statement {
            if columns.is_some() {
                return Err(Refusal::Forbidden("more than one statement".to_owned()));
            }
            if !statement.only_reads() {
                return Err(Refusal::Forbidden("a statement that writes".to_owned()));
            }
            columns = Some(statement.columns());
        }
        if length == 0 {
            break;
        }
        start += length;
    }
    columns.map_or_else(|| syntax("the query is empty", None), Ok)
}

/// SQLite asks this for everything that a statement would do, while it compiles it.
///
/// # Safety
/// To be called by SQLite: the texts are null or NUL-terminated and valid during the call; `denied` is null or points to
/// an `Option<String>` that nobody else uses meanwhile.
unsafe extern "C" fn authorize(
    denied: *mut c_void,
    action: c_int,
    first: *const c_char,
    second: *const c_char,
    _schema: *const c_char,
    _inside: *const c_char,
) -> c_int {
    // SAFETY: by the condition above.
    let (first, second) = unsafe { (copied(first), copied(second)) };
    let Some(what) = forbidden(action, first.as_deref(), second.as_deref()) else {
        return ffi::SQLITE_OK;
    };
    // SAFETY: by the condition above; `confine` passes such a pointer for as long as SQLite has it, and null then.
    if let Some(denied) = unsafe { denied.cast::<Option<String>>().as_mut() } {
        denied.get_or_insert(what);
    }
    ffi::SQLITE_DENY
}

/// What a query may not do, in words; `None` for what it may.
fn forbidden(action: c_int, first: Option<&str>, second: Option<&str>) -> Option<String> {
    let name = first.unwrap_or_default();
    Some(match action {
        ffi::SQLITE_SELECT | ffi::SQLITE_READ | ffi::SQLITE_RECURSIVE => return None,
        // Here the name is the second argument.
        ffi::SQLITE_FUNCTION => match second.unwrap_or_default() {
            name if name.eq_ignore_ascii_case("load_extension") => "load_extension()".to_owned(),
            _ => return None,
        },
        ffi::SQLITE_PRAGMA => {
            if is_harmless(name, second.is_some()) {
                return None;
            }
            format!("PRAGMA {name}")
        }
        ffi::SQLITE_ATTACH => "ATTACH".to_owned(),
        ffi::SQLITE_DETACH => "DETACH".to_owned(),
        ffi::SQLITE_TRANSACTION | ffi::SQLITE_SAVEPOINT => "a transaction".to_owned(),
        ffi::SQLITE_INSERT | ffi::SQLITE_UPDATE | ffi::SQLITE_DELETE
            if matches!(name, "sqlite_master" | "sqlite_temp_master") =>
        {
            "changing the schema".to_owned()
        }
        ffi::SQLITE_INSERT => format!("INSERT into {name}"),
        ffi::SQLITE_UPDATE => format!("UPDATE of {name}"),
        ffi::SQLITE_DELETE => format!("DELETE from {name}"),
        ffi::SQLITE_ANALYZE | ffi::SQLITE_REINDEX => "changing an index".to_owned(),
        _ => "changing the schema".to_owned(),
    })
}

/// Pragmas that only describe the database.
fn is_harmless(pragma: &str, has_argument: bool) -> bool {
    const ABOUT: [&str; 7] = [
        "table_info",
        "table_xinfo",
        "table_list",
        "index_list",
        "index_info",
        "index_xinfo",
        "foreign_key_list",
    ];
    const PLAIN: [&str; 4] = [
        "database_list",
        "collation_list",
        "function_list",
        "compile_options",
    ];
    let is_in = |list: &[&str]| list.iter().any(|name| name.eq_ignore_ascii_case(pragma));
    is_in(&ABOUT) || (!has_argument && is_in(&PLAIN))
}
