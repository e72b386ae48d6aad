//! The engine's HTTP server.
//!
//! | request | answer |
//! |---|---|
//! | `GET /health` | 200, or 503 while the model is loading |
//! | `GET /status` | JSON: model, applied configuration under the file's key paths, reloads, memory by kind |
//! | `GET /metrics` | Prometheus text |
//! | `POST /reload` | 200 when the model is back under the new configuration; 400 with the reason when it was refused |
//! | `POST /v1/completions` | the answer to `{"prompt": "…", "max_tokens": 16}`; 503 without a model |

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;

use crate::server::{Reload, Server};

/// The one server of the process. Its lock is held for single calls only, never over an await.
pub(crate) type Shared = Arc<Mutex<Server>>;

/// The server's state, whatever happened to others who held it.
pub(crate) fn lock(server: &Shared) -> MutexGuard<'_, Server> {
    server.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The routes.
pub(crate) fn router(server: Shared) -> Router {
    Router::new()
        .route("/health", get(health))
        .route(
            "/status",
            get(async |State(server): State<Shared>| Json(lock(&server).status())),
        )
        .route("/metrics", get(metrics))
        .route("/reload", post(reload))
        .route("/v1/completions", post(completions))
        .with_state(server)
}

async fn health(State(server): State<Shared>) -> Response {
    if lock(&server).healthy() {
        Json(json!({ "status": "ok" })).into_response()
    } else {
        failed(StatusCode::SERVICE_UNAVAILABLE, "the model is not ready")
    }
}

async fn metrics(State(server): State<Shared>) -> Response {
    (
        [(CONTENT_TYPE, "text/plain; version=0.0.4")],
        lock(&server).metrics(),
    )
        .into_response()
}

async fn reload(State(server): State<Shared>) -> Response {
    let begun = lock(&server).reload();
    match begun {
        Reload::Loading(ready) => match ready.await {
            Ok(()) => reloaded(&server),
            Err(_) => failed(StatusCode::SERVICE_UNAVAILABLE, "the engine is going away"),
        },
        Reload::Done => reloaded(&server),
        Reload::Refused(reason) => failed(StatusCode::BAD_REQUEST, &reason),
        Reload::Silent => std::future::pending().await,
    }
}

fn reloaded(server: &Shared) -> Response {
    let status = lock(server).status();
    Json(json!({ "reloaded": true, "config_sha256": status["config_sha256"] })).into_response()
}

#[derive(Debug, Deserialize)]
struct Completion {
    prompt: String,
    #[serde(default = "few_tokens")]
    max_tokens: u32,
}

const fn few_tokens() -> u32 {
    16
}

async fn completions(State(server): State<Shared>, Json(asked): Json<Completion>) -> Response {
    // About four characters make a token.
    let input_tokens = u32::try_from(asked.prompt.len().div_ceil(4))
        .unwrap_or(u32::MAX)
        .max(1);
    let answer = {
        let mut server = lock(&server);
        if !server.ready() {
            return failed(StatusCode::SERVICE_UNAVAILABLE, "no model is loaded");
        }
        server.probe(input_tokens, asked.max_tokens)
    };
    let Ok(finished) = answer.await else {
        return failed(StatusCode::SERVICE_UNAVAILABLE, "the request was dropped");
    };
    let tokens = finished.request.output_tokens;
    Json(json!({
        "object": "text_completion",
        "model": lock(&server).model_name(),
        "choices": [{ "index": 0, "text": "lorem ".repeat(tokens as usize), "finish_reason": "length" }],
        "usage": {
            "prompt_tokens": input_tokens,
            "completion_tokens": tokens,
            "total_tokens": input_tokens.saturating_add(tokens),
        },
    }))
    .into_response()
}

fn failed(status: StatusCode, reason: &str) -> Response {
    (status, Json(json!({ "error": reason }))).into_response()
}
