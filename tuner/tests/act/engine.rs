//! An engine of a few lines: it serves HTTP on loopback, reads its file when told, and shows what it read.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_tuner::{Format, KeyPath, edit};
use serde_json::{Map, Value, json};

/// What goes wrong at a reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// It answers 500 and stays on its former values.
    Refuses,
    /// It reads the file and answers no more health checks until the next reload.
    Sickens,
    /// It answers 200 and stays on its former values.
    Lies,
    /// It reads the file and never answers.
    Hangs,
    /// It answers 302.
    Redirects,
    /// It reads the file and answers with a body that does not end.
    Babbles,
    /// It closes the connection and serves nothing any more.
    Dies,
}

/// What a test does when a request comes in: before it is handled, and after.
type Hook = Box<dyn FnMut(usize, When) + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    Before,
    After,
}

struct State {
    file: PathBuf,
    applied: Value,
    faults: VecDeque<Fault>,
    healthy: bool,
    dead: bool,
    requests: Vec<String>,
    hook: Option<Hook>,
}

pub(crate) struct TestEngine {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

impl TestEngine {
    pub(crate) fn start(file: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State {
            file: file.to_owned(),
            applied: values(file).unwrap(),
            faults: VecDeque::new(),
            healthy: true,
            dead: false,
            requests: Vec::new(),
            hook: None,
        }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let shared = Arc::clone(&shared);
                // A client that was killed leaves a broken connection.
                std::thread::spawn(move || drop(serve(stream.unwrap(), &shared)));
            }
        });
        Self { port, state }
    }

    /// What goes wrong at the next reloads, in turn; after these, nothing.
    pub(crate) fn faults(&self, faults: &[Fault]) {
        self.state.lock().unwrap().faults.extend(faults);
    }

    pub(crate) fn no_faults(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    pub(crate) fn on_request(&self, hook: impl FnMut(usize, When) + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        state.requests.clear();
        state.hook = Some(Box::new(hook));
    }

    pub(crate) fn no_hook(&self) {
        self.state.lock().unwrap().hook = None;
    }

    /// The values it serves with.
    pub(crate) fn applied(&self) -> Value {
        self.state.lock().unwrap().applied.clone()
    }

    /// What it was asked so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

/// The path that is asked for, and where the answer goes.
pub(crate) fn asked(stream: TcpStream) -> std::io::Result<(String, TcpStream)> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        if header.trim().is_empty() {
            break;
        }
        let header = header.to_ascii_lowercase();
        length = header
            .strip_prefix("content-length:")
            .map_or(length, |n| n.trim().parse().unwrap());
    }
    reader.read_exact(&mut vec![0; length])?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    Ok((path, reader.into_inner()))
}

fn serve(stream: TcpStream, shared: &Mutex<State>) -> std::io::Result<()> {
    let (path, stream) = asked(stream)?;
    let mut state = shared.lock().unwrap();
    if state.dead {
        return Ok(());
    }
    let number = state.requests.len();
    state.requests.push(path.clone());
    let mut hook = state.hook.take();
    let mut at = |when| {
        if let Some(hook) = &mut hook {
            hook(number, when);
        }
    };
    at(When::Before);
    let answer = answer(&mut state, &path);
    at(When::After);
    state.hook = hook;
    drop(state);
    answer.give(stream)
}

impl Answer {
    /// Gives it, for as long as the caller listens.
    pub(crate) fn give(self, mut stream: TcpStream) -> std::io::Result<()> {
        match self {
            Answer::Is(status, body) => {
                let length = body.len();
                write!(
                    stream,
                    "HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nlocation: /health\r\nconnection: close\r\n\r\n{body}"
                )
            }
            Answer::Nothing => {
                // Until the caller has had enough.
                let mut byte = [0];
                stream.read(&mut byte).map(drop)
            }
            Answer::Endless => {
                write!(stream, "HTTP/1.1 200 x\r\nconnection: close\r\n\r\n")?;
                loop {
                    stream.write_all(b"and then ")?;
                    std::thread::sleep(Duration::from_millis(20));
                }
            }
            Answer::Garbage => stream.write_all(b"\x00\xff no HTTP at all\r\n\r\n"),
            Answer::Closed => Ok(()),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Is(u16, String),
    Nothing,
    Endless,
    Garbage,
    Closed,
}

fn answer(state: &mut State, path: &str) -> Answer {
    match path {
        "/health" => Answer::Is(if state.healthy { 200 } else { 503 }, String::new()),
        "/status" => Answer::Is(200, json!({ "applied": state.applied }).to_string()),
        "/reload" => {
            let fault = state.faults.pop_front().unwrap_or(Fault::None);
            let reads = !matches!(
                fault,
                Fault::Refuses | Fault::Lies | Fault::Redirects | Fault::Dies
            );
            if reads {
                match values(&state.file) {
                    Some(values) => state.applied = values,
                    None => return Answer::Is(500, "the file is not valid".to_owned()),
                }
                state.healthy = fault != Fault::Sickens;
            }
            match fault {
                Fault::None | Fault::Sickens | Fault::Lies => Answer::Is(200, String::new()),
                Fault::Refuses => Answer::Is(500, "no".to_owned()),
                Fault::Redirects => Answer::Is(302, String::new()),
                Fault::Hangs => Answer::Nothing,
                Fault::Babbles => Answer::Endless,
                Fault::Dies => {
                    state.dead = true;
                    Answer::Closed
                }
            }
        }
        _ => Answer::Is(404, String::new()),
    }
}

/// The values that a file holds, as this engine understands it; `None` when it is not valid.
pub(crate) fn values(file: &Path) -> Option<Value> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut shown = Map::new();
    for key in ["quantization", "batch", "swap", "note"] {
        let path: KeyPath = key.parse().unwrap();
        if let Some(value) = edit::get(&text, Format::Yaml, &path).ok()? {
            shown.insert(key.to_owned(), value);
        }
    }
    Some(Value::Object(shown))
}
