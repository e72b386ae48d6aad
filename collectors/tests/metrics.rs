//! Metrics over real sockets: pages that are well, and servers that are not.

#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use plimsoll_collectors::{Collector, EngineMetrics, MetricsEndpoint, MetricsReport};
use plimsoll_trace::Stamp;

/// Answers the calls in turn with these functions, the last for ever.
fn server(answers: Vec<fn(TcpStream)>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/metrics", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let answer = answers[number.min(answers.len() - 1)];
            std::thread::spawn(move || {
                let stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                while lines
                    .next()
                    .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
                {}
                answer(stream);
            });
        }
    });
    url
}

fn say(mut stream: TcpStream, status: &str, page: &str) {
    // The caller may have gone.
    drop(write!(
        stream,
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\nlocation: /elsewhere\r\nconnection: close\r\n\r\n{page}",
        page.len()
    ));
}

fn well(stream: TcpStream) {
    say(
        stream,
        "200 OK",
        "vllm:num_requests_waiting{engine=\"0\"} 4\nqueue{name=\"a\"} 7\nodd line {\n",
    );
}

fn redirects(stream: TcpStream) {
    say(stream, "302 Found", "vllm:num_requests_waiting 9\n");
}

fn babbles(mut stream: TcpStream) {
    let line = b"vllm:num_requests_waiting 9\n".repeat(1000);
    drop(stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"));
    while stream.write_all(&line).is_ok() {}
}

fn no_text(mut stream: TcpStream) {
    drop(stream.write_all(
        b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n\xff\xfe{=\"\x00 5\nvllm:num_requests_waiting 3\n",
    ));
}

fn closes(stream: TcpStream) {
    drop(stream);
}

fn collector(urls: &[(&str, String)]) -> (EngineMetrics, Receiver<MetricsReport>) {
    let (sender, reports) = channel();
    let endpoint = |(engine, url): &(&str, String)| MetricsEndpoint {
        engine: (*engine).to_owned(),
        url: url.clone(),
        named: vec![(Arc::from("metric:queue"), "queue".parse().unwrap())],
    };
    let endpoints = urls.iter().map(endpoint).collect();
    let deliver = Arc::new(move |report| drop(sender.send(report)));
    (EngineMetrics::spawn(endpoints, deliver), reports)
}

fn next(reports: &Receiver<MetricsReport>) -> MetricsReport {
    reports.recv_timeout(Duration::from_secs(60)).unwrap()
}

fn waiting(report: &MetricsReport) -> Option<f64> {
    let found = report.signals.iter();
    let mut found = found.filter(|(name, _)| &**name == "engine.requests_waiting");
    found.next().map(|(_, value)| *value)
}

#[test]
fn what_a_page_says_and_what_rules_name() {
    let (mut metrics, reports) = collector(&[("chat", server(vec![well]))]);
    metrics.tick(Stamp::at_secs(1));
    let report = next(&reports);
    assert_eq!((report.engine.as_str(), report.at), ("chat", Stamp::at_secs(1)));
    assert_eq!(waiting(&report), Some(4.0));
    assert!(report.signals.contains(&(Arc::from("metric:queue"), 7.0)));
    assert_eq!(report.figures.unwrap().waiting, Some(4.0));
}

#[test]
fn servers_that_are_not_well_make_the_signals_unknown_and_no_more() {
    for bad in [redirects, babbles, closes] {
        let (mut metrics, reports) = collector(&[("chat", server(vec![bad, well]))]);
        metrics.tick(Stamp::at_secs(1));
        let report = next(&reports);
        assert_eq!((report.signals, report.figures), (Vec::new(), None));
        metrics.tick(Stamp::at_secs(2));
        assert_eq!(waiting(&next(&reports)), Some(4.0), "and the next page is read");
    }
    let (mut metrics, reports) = collector(&[("chat", server(vec![no_text]))]);
    metrics.tick(Stamp::at_secs(1));
    assert_eq!(waiting(&next(&reports)), Some(3.0), "the lines that can be read");
}

#[test]
fn one_that_never_answers_holds_up_nobody_else() {
    let hangs: fn(TcpStream) = |stream| {
        let mut line = String::new();
        drop(BufReader::new(stream).read_line(&mut line));
    };
    let (mut metrics, reports) = collector(&[("hangs", server(vec![hangs])), ("chat", server(vec![well]))]);
    for secs in 1..=3 {
        metrics.tick(Stamp::at_secs(secs));
        assert_eq!(next(&reports).engine, "chat");
    }
    // Another configuration waits for nobody either.
    metrics.set_endpoints(Vec::new());
    metrics.tick(Stamp::at_secs(4));
}
