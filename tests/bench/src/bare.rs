//! An HTTP server that does nothing: it reads a request and sends the same answer to each. What it
//! reaches is what is left of a manager's requests once everything but HTTP is free.
//!
//! It is the `hyper` that manager is built on, with one thread as there, in this process.

use std::convert::Infallible;
use std::thread;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, ETAG, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Builder;

/// Starts one that answers with this body, and runs until this program ends. The answer is its URL.
pub(crate) fn start(body: &str) -> Result<String> {
    let body = Bytes::from(body.to_owned());
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    thread::spawn(move || runtime.block_on(serve(listener, body)));
    Ok(format!("http://{address}"))
}

async fn serve(listener: TcpListener, body: Bytes) {
    while let Ok((stream, _)) = listener.accept().await {
        let body = body.clone();
        let answer = service_fn(move |request| answer(request, body.clone()));
        if stream.set_nodelay(true).is_ok() {
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), answer));
        }
    }
}

async fn answer(
    request: Request<Incoming>,
    body: Bytes,
) -> Result<Response<Full<Bytes>>, Infallible> {
    // Whatever was sent is read; what goes wrong with it is the client's to say.
    let _ = request.into_body().collect().await;
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(
        ETAG,
        HeaderValue::from_static("\"01a227e429340000-45221fe6fe1e4cc1bbd52a9b4af9f48d\""),
    );
    Ok(response)
}
