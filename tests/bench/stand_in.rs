//! An engine that only says when it is told to reload: it catches SIGHUP and answers every request with 200.

use std::io::Write;

use anyhow::Context;
use plimsoll_trace::Stamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};

/// This program as the engine. Further arguments are there to be found by.
pub(crate) const ENGINE: &str = "as-engine";

/// Prints its port, and then the boot clock in ns each time it is told to reload.
pub(crate) fn serve() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut told = signal(SignalKind::hangup())?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        say(i64::from(listener.local_addr()?.port()))?;
        loop {
            tokio::select! {
                _ = told.recv() => say(Stamp::now().mono_ns)?,
                connection = listener.accept() => {
                    tokio::spawn(answer(connection.context("no connection")?.0));
                }
            }
        }
    })
}

async fn answer(mut stream: TcpStream) {
    let mut request = [0; 4096];
    if stream.read(&mut request).await.is_ok() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok";
        drop(stream.write_all(answer).await);
    }
}

fn say(number: i64) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{number}")?;
    Ok(out.flush()?)
}
