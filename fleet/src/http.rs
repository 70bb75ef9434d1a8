//! What the program answers over HTTP: where a camera is, for players and platforms; metrics; and what its commands do, for
//! programs. It changes things only for callers on this machine, or with the token.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, Request, State};
use axum::http::{Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands;
use crate::config;
use crate::lease;
use crate::model::Where;
use crate::quorum;
use crate::seen::NodeSeen;
use crate::shared::Shared;
use crate::wanted::{self, Options, Set};

type App = State<Arc<Shared>>;

pub async fn serve(shared: Arc<Shared>) -> Result<()> {
    let token = shared.node.token_file.as_deref().map(config::secret).transpose()?;
    let guarded = Router::new()
        .route("/api/cameras", get(cameras))
        .route("/api/sync", post(sync))
        .route("/api/remove", post(remove))
        .route("/api/move", post(order_move))
        .route("/api/drain", post(drain))
        .route("/api/rebalance", post(rebalance))
        .route("/api/status", get(status))
        .route("/api/history", get(history))
        .layer(DefaultBodyLimit::max(256 << 20))
        .layer(from_fn_with_state(Arc::new(token), may));
    let router = Router::new()
        .merge(guarded)
        .route("/where", get(place))
        .route("/metrics", get(metrics))
        .route("/quorum", get(quorum_seen))
        .route("/leading", get(leading))
        .fallback(redirect)
        .with_state(shared.clone());
    let listen = shared.node.listen;
    let listener = tokio::net::TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (node.listen)"))?;
    axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .await
        .context("HTTP has ended")
}

/// Who may change things, and see what is wanted.
async fn may(
    State(token): State<Arc<Option<String>>>,
    ConnectInfo(from): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let is_it = match &*token {
        Some(token) => given.is_some_and(|given| is_same(given, token)),
        // A page that somebody looks at here, and a proxy for others, could send requests as well: a browser says what it is
        // for, or at least by which name it reaches this.
        None => {
            let has = |name: &str| request.headers().contains_key(name);
            let host = request.headers().get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
            let is_own = ["127.0.0.1", "localhost", "[::1]"]
                .iter()
                .any(|own| host.strip_prefix(own).is_some_and(|rest| rest.is_empty() || rest.starts_with(':')));
            let is_passed_on =
                ["origin", "sec-fetch-site", "x-forwarded-for", "forwarded", "via"].into_iter().any(has);
            from.ip().is_loopback() && is_own && !is_passed_on
        }
    };
    if is_it {
        return next.run(request).await;
    }
    let why = "send the token of node.token_file as `Authorization: Bearer …`; without a token, only callers on this \
               machine are answered";
    refusal(StatusCode::UNAUTHORIZED, why)
}

/// Takes as long for every wrong token of the same length.
fn is_same(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().zip(other.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, Json(json!({ "error": why }))).into_response()
}

/// An error as an answer. What the caller has sent wrong is told apart from what does not work here.
struct Failure(StatusCode, anyhow::Error);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        refusal(self.0, &format!("{:#}", self.1))
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error)
    }
}

fn bad(error: anyhow::Error) -> Failure {
    Failure(StatusCode::BAD_REQUEST, error)
}

#[derive(Deserialize)]
struct SyncQuery {
    label: Option<String>,
    /// All cameras are meant, whatever their label.
    all_labels: Option<String>,
    prune: Option<String>,
    dry_run: Option<String>,
    if_revision: Option<i64>,
}

fn is_on(flag: &Option<String>, default: bool) -> bool {
    flag.as_deref().map_or(default, |flag| matches!(flag, "1" | "true"))
}

impl SyncQuery {
    fn options(self) -> Options {
        let (prune, dry_run) = (is_on(&self.prune, true), is_on(&self.dry_run, false));
        let label = (!is_on(&self.all_labels, false)).then(|| self.label.unwrap_or_default());
        Options { label, prune, dry_run, if_revision: self.if_revision }
    }
}

async fn sync(State(shared): App, Query(query): Query<SyncQuery>, body: String) -> Result<Response, Failure> {
    let options = query.options();
    let items = wanted::parse(&body).map_err(bad)?;
    let set = Set::of(&items, options.label.as_deref()).map_err(bad)?;
    let outcome = wanted::sync(&shared.store, &shared.seal, &set, &options).await?;
    Ok(answer(&outcome))
}

fn answer(outcome: &wanted::Outcome) -> Response {
    let status = if outcome.conflict { StatusCode::CONFLICT } else { StatusCode::OK };
    (status, Json(json!(outcome))).into_response()
}

async fn remove(State(shared): App, Query(query): Query<SyncQuery>, body: String) -> Result<Response, Failure> {
    let keys: BTreeSet<String> =
        serde_json::from_str(&body).context("expected a JSON array of keys").map_err(bad)?;
    Ok(answer(&wanted::remove(&shared.store, &keys, &query.options()).await?))
}

#[derive(Deserialize)]
struct ListQuery {
    label: Option<String>,
    reveal: Option<String>,
}

async fn cameras(State(shared): App, Query(query): Query<ListQuery>) -> Result<Json<Value>, Failure> {
    let reveal = is_on(&query.reveal, false);
    Ok(Json(commands::export(&shared.store, &shared.seal, query.label.as_deref(), reveal).await?))
}

#[derive(Deserialize)]
struct Order {
    key: Option<String>,
    node: Option<String>,
    undo: Option<String>,
    per_sec: Option<usize>,
}

async fn order_move(State(shared): App, Query(order): Query<Order>) -> Result<Json<Value>, Failure> {
    let key = order.key.context("key is missing").map_err(bad)?;
    let node = order.node.context("node is missing").map_err(bad)?;
    commands::order_move(&shared.store, &key, &node).await.map_err(bad)?;
    Ok(Json(json!({})))
}

async fn drain(State(shared): App, Query(order): Query<Order>) -> Result<Json<Value>, Failure> {
    let node = order.node.context("node is missing").map_err(bad)?;
    commands::drain(&shared.store, &node, !is_on(&order.undo, false)).await?;
    Ok(Json(json!({})))
}

async fn rebalance(State(shared): App, Query(order): Query<Order>) -> Result<Json<Value>, Failure> {
    commands::rebalance(&shared.store, order.per_sec.unwrap_or(1)).await?;
    Ok(Json(json!({})))
}

async fn status(State(shared): App) -> Result<Json<Value>, Failure> {
    Ok(Json(commands::status(&shared.store).await?))
}

#[derive(Deserialize)]
struct HistoryQuery {
    key: Option<String>,
    limit: Option<usize>,
}

async fn history(State(shared): App, Query(query): Query<HistoryQuery>) -> Result<Json<Value>, Failure> {
    let limit = query.limit.unwrap_or(100);
    Ok(Json(commands::history(&shared.store, query.key.as_deref(), limit).await?))
}

async fn quorum_seen(State(shared): App) -> Json<Value> {
    Json(json!(quorum::seen(&shared.store).await))
}

/// What the leader knows; null on other nodes.
async fn leading(State(shared): App) -> Json<Value> {
    if shared.is_leader.load(Ordering::SeqCst) { Json(json!(*shared.leading.lock())) } else { Json(Value::Null) }
}

#[derive(Deserialize)]
struct PlaceQuery {
    key: String,
}

async fn place(State(shared): App, Query(query): Query<PlaceQuery>) -> Result<Response, Failure> {
    Ok(match find(&shared, &query.key).await? {
        None => refusal(StatusCode::NOT_FOUND, "the fleet has no such camera on any node just now"),
        Some((node, public, at)) => {
            Json(json!({ "key": query.key, "node": node, "public": public, "place": at })).into_response()
        }
    })
}

/// The node that has a camera, how players reach it, and its place.
async fn find(shared: &Shared, key: &str) -> Result<Option<(String, Option<String>, Where)>> {
    let Some(kv) = shared.store.get_here(&shared.store.keys.place(key)).await? else { return Ok(None) };
    let at: Where = serde_json::from_slice(&kv.value).with_context(|| format!("{} cannot be read", kv.key))?;
    let node = match &at {
        Where::Stopping { to: Some(to), .. } => to.to_string(),
        at => at.node().to_string(),
    };
    let public = shared.nodes.lock().get(&node).map(|info| info.public.clone());
    Ok(Some((node, public, at)))
}

/// Sends a player to the node that has its stream.
async fn redirect(
    State(shared): App,
    method: Method,
    uri: Uri,
    Query(query): Query<std::collections::HashMap<String, String>>,
) -> Response {
    let Some(key) = stream_of(uri.path(), &query) else {
        return refusal(StatusCode::NOT_FOUND, "this is neither a stream nor one of this program's own paths");
    };
    let found = match find(&shared, &key).await {
        Ok(found) => found,
        Err(error) => return Failure::from(error).into_response(),
    };
    let Some((node, Some(public), _)) = found else {
        return refusal(StatusCode::NOT_FOUND, "the fleet has no such camera on any node just now");
    };
    // The server itself asks here (`edge=1`) where a stream is that it does not have: it must not be sent to itself.
    if query.contains_key("edge") && node == shared.node.id {
        return refusal(StatusCode::NOT_FOUND, "this is the node that has the camera, and it does not play");
    }
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    let status = if method == Method::GET { StatusCode::FOUND } else { StatusCode::TEMPORARY_REDIRECT };
    Response::builder()
        .status(status)
        .header(header::LOCATION, format!("{public}{rest}"))
        .header(header::ACCESS_CONTROL_ALLOW_ORIGIN, "*")
        .header(header::CACHE_CONTROL, "no-store")
        .body(Body::empty())
        .unwrap_or_else(|_| refusal(StatusCode::BAD_REQUEST, "this path cannot be redirected"))
}

/// The key of the stream that a URL of MediaServer plays.
fn stream_of(path: &str, query: &std::collections::HashMap<String, String>) -> Option<String> {
    let vhost = query.get("vhost").map_or("__defaultVhost__", String::as_str);
    if path == "/index/api/webrtc" || path == "/index/api/whep" {
        return Some(format!("{vhost}/{}/{}", query.get("app")?, query.get("stream")?));
    }
    const FILES: [&str; 2] = ["/hls.m3u8", "/hls.fmp4.m3u8"];
    const ENDS: [&str; 7] = [".live.flv", ".live.ts", ".live.mp4", ".flv", ".ts", ".mp4", ".m3u8"];
    let path = path.strip_prefix('/')?;
    let stream = FILES
        .iter()
        .find_map(|file| path.strip_suffix(file))
        .or_else(|| ENDS.iter().find_map(|end| path.strip_suffix(end)))?;
    let (app, stream) = stream.rsplit_once('/')?;
    (!app.is_empty() && !stream.is_empty()).then(|| format!("{vhost}/{app}/{stream}"))
}

async fn metrics(State(shared): App) -> Response {
    let text = metrics_of(&shared);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn metrics_of(shared: &Shared) -> String {
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP zlm_journal_fleet_{name} {help}\n# TYPE zlm_journal_fleet_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(text, "zlm_journal_fleet_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let flag = |value: bool| one(f64::from(u8::from(value)));
    let has_lease = shared.lease.load(Ordering::SeqCst) != 0;
    let left = shared.deadline.left() as f64 / 1000.0;
    let (status, asked) = shared.status.lock().clone();
    let count = |path: &str| status.pointer(path).and_then(Value::as_f64);
    add("node_member", "gauge", "Whether this node has its lease.", &flag(has_lease));
    add(
        "node_fence_seconds",
        "gauge",
        "Seconds until this node stops its cameras unless it can renew its lease.",
        &one(left),
    );
    add(
        "node_fences_total",
        "counter",
        "How often this node has stopped its cameras.",
        &one(shared.fences.load(Ordering::Relaxed) as f64),
    );
    add(
        "node_cameras",
        "gauge",
        "Cameras placed on this node.",
        &one(shared.placed.load(Ordering::Relaxed) as f64),
    );
    add(
        "node_capacity",
        "gauge",
        "The sum of the weights that this node may have.",
        &one(shared.node.capacity.into()),
    );
    add(
        "node_trouble",
        "gauge",
        "Whether this node knows that something is wrong; its log says what.",
        &flag(shared.trouble.lock().is_some()),
    );
    let without = shared.goes_on_without_quorum.load(Ordering::SeqCst);
    add("node_without_quorum", "gauge", "Whether this node goes on while etcd has no quorum.", &flag(without));
    let silent = if asked == 0 { f64::NAN } else { lease::now().saturating_sub(asked) as f64 / 1000.0 };
    add("node_server_silent_seconds", "gauge", "Seconds since MediaServer last answered.", &one(silent));
    if let Some(playing) = count("/now/playing") {
        add(
            "node_server_playing",
            "gauge",
            "Proxies that play on this node's MediaServer, also those that are not the fleet's.",
            &one(playing),
        );
    }
    let leads = shared.is_leader.load(Ordering::SeqCst);
    add("leader", "gauge", "Whether this node leads the fleet.", &flag(leads));
    if leads {
        let seen = shared.leading.lock().clone();
        add("cameras", "gauge", "Cameras that are wanted.", &one(seen.cameras as f64));
        add("unplaced_cameras", "gauge", "Cameras that have no node.", &one(seen.unplaced_count as f64));
        add(
            "stuck_cameras",
            "gauge",
            "Cameras that should leave their node and cannot.",
            &one(seen.stuck_count as f64),
        );
        add("moving_cameras", "gauge", "Cameras that are being moved.", &one(seen.moving as f64));
        add("waiting_moves", "gauge", "Planned moves that have not begun.", &one(seen.waiting as f64));
        add(
            "moves_total",
            "counter",
            "Changes of a camera's place that this node has written.",
            &one(shared.moves.load(Ordering::Relaxed) as f64),
        );
        add("plan_seconds", "gauge", "How long the last plan took.", &one(seen.plan_ms as f64 / 1000.0));
        let nodes = |value: &dyn Fn(&NodeSeen) -> f64| -> Vec<(String, f64)> {
            seen.nodes.iter().map(|(id, node)| (format!("{{node=\"{id}\"}}"), value(node))).collect()
        };
        add("node_up", "gauge", "Whether a node has its lease.", &nodes(&|node| f64::from(u8::from(node.alive))));
        add(
            "node_draining",
            "gauge",
            "Whether a node is being emptied.",
            &nodes(&|node| f64::from(u8::from(node.draining))),
        );
        add("node_used", "gauge", "The sum of the weights of a node's cameras.", &nodes(&|node| node.used as f64));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_of_players_name_their_stream() {
        let query = std::collections::HashMap::new();
        for (path, key) in [
            ("/live/gate.live.flv", Some("__defaultVhost__/live/gate")),
            ("/live/gate.flv", Some("__defaultVhost__/live/gate")),
            ("/a/b/gate/hls.m3u8", Some("__defaultVhost__/a/b/gate")),
            ("/live/gate/hls.fmp4.m3u8", Some("__defaultVhost__/live/gate")),
            ("/live/gate.live.mp4", Some("__defaultVhost__/live/gate")),
            ("/live/gate", None),
            ("/gate.flv", None),
            ("/", None),
        ] {
            assert_eq!(stream_of(path, &query).as_deref(), key, "{path}");
        }
        let query = [("app", "live"), ("stream", "gate"), ("vhost", "v")]
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .into();
        assert_eq!(stream_of("/index/api/webrtc", &query).as_deref(), Some("v/live/gate"));
    }

    #[test]
    fn only_the_whole_token_is_the_token() {
        assert!(is_same("abc", "abc"));
        assert!(!is_same("abd", "abc") && !is_same("ab", "abc") && !is_same("", "abc"));
    }
}
