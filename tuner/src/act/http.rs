//! The few HTTP calls the executor makes: short, without redirects or proxies, with a bounded answer.

use std::time::Duration;

use thiserror::Error;

use crate::spec::Call;

/// A call for which no other time is given may not take longer than this, whatever the engine does.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// More than this of an answer is not read.
const BODY_LIMIT: u64 = 1 << 20;

/// An HTTP call that brought no answer.
#[derive(Debug, Error)]
pub enum HttpError {
    /// No answer, or one that cannot be read.
    #[error("no usable answer from {url}")]
    NoAnswer {
        /// The address.
        url: String,
        /// What the client says.
        #[source]
        source: Box<ureq::Error>,
    },
}

/// An answer: its status code and, as far as it is text, its body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) const fn is_success(&self) -> bool {
        self.status >= 200 && self.status < 300
    }
}

/// Asks with GET.
pub(crate) fn get(url: &str) -> Result<Answer, HttpError> {
    send(
        &Call {
            method: "GET".to_owned(),
            url: url.to_owned(),
        },
        "",
        None,
    )
}

/// Makes one call, with `body` as JSON if there is one. A redirect is an answer like any other, and not a success. The
/// call ends after `timeout`, or after five seconds when none is given.
pub(crate) fn send(call: &Call, body: &str, timeout: Option<Duration>) -> Result<Answer, HttpError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(timeout.unwrap_or(CALL_TIMEOUT)))
        .max_redirects(0)
        .max_redirects_will_error(false)
        .http_status_as_error(false)
        .proxy(None)
        .build();
    let agent = config.new_agent();
    let url = call.url.as_str();
    let answer = match call.method.as_str() {
        "GET" => agent.get(url).call(),
        method => {
            let request = if method == "PUT" {
                agent.put(url)
            } else {
                agent.post(url)
            };
            if body.is_empty() {
                request.send_empty()
            } else {
                request.content_type("application/json").send(body)
            }
        }
    };
    let fail = |source| HttpError::NoAnswer {
        url: url.to_owned(),
        source: Box::new(source),
    };
    let mut answer = answer.map_err(fail)?;
    let status = answer.status().as_u16();
    let body = answer
        .body_mut()
        .with_config()
        .limit(BODY_LIMIT)
        .lossy_utf8(true)
        .read_to_string()
        .map_err(fail)?;
    Ok(Answer { status, body })
}
