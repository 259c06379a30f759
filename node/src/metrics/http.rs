//! `/metrics` over HTTP: one page, read only.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::scrape::Scraper;

/// Serves until `stop` is done.
pub(crate) async fn serve(
    listener: TcpListener,
    scraper: Arc<Scraper>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let pages = Router::new()
        .route("/metrics", get(metrics))
        .with_state(scraper);
    axum::serve(listener, pages)
        .with_graceful_shutdown(stop)
        .await
}

async fn metrics(State(scraper): State<Arc<Scraper>>) -> Response {
    match scraper.text().await {
        Ok(text) => {
            let form = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, form)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
