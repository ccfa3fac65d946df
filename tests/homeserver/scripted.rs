//! A homeserver that answers as told and remembers what it was asked. A real socket; nothing of Matrix.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use parlour::config::{AppServiceTokens, Config, Secret};
use parlour::matrix::Homeserver;
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const AS_TOKEN: &str = "as-token-0123456789abcdefghijklmnop";
pub const BOT_TOKEN: &str = "syt_bot";

#[derive(Debug, Clone)]
pub enum Answer {
    Json(u16, Value),
    Text(u16, String),
    /// 429 with the header `Retry-After` in seconds.
    RetryAfter(u64),
    Redirect(String),
    /// 200 and so many spaces.
    Huge(usize),
    /// The same as the other, later.
    After(Duration, Box<Answer>),
    /// 200 and a byte now and then, for ever.
    Drip,
    /// The connection ends in the middle of the body.
    Broken,
}

pub fn ok(body: Value) -> Answer {
    Answer::Json(200, body)
}

pub fn refusal(status: u16, errcode: &str) -> Answer {
    Answer::Json(status, json!({"errcode": errcode, "error": "as told"}))
}

/// One request as it came.
#[derive(Debug, Clone, PartialEq)]
pub struct Asked {
    /// Method, path and query.
    pub line: String,
    pub authorization: Option<String>,
    pub body: Value,
}

#[derive(Clone, Default)]
pub struct Scripted {
    /// Part of the request line → answers; the last one stays.
    answers: Arc<Mutex<HashMap<String, VecDeque<Answer>>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Scripted {
    pub async fn start() -> (Scripted, SocketAddr) {
        let scripted = Scripted::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(scripted.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (scripted, address)
    }

    /// What is asked with `part` in its request line gets these answers one after the other, and the last for ever. The
    /// longest part wins; nothing said: 404 `M_UNRECOGNIZED`.
    pub fn answer(&self, part: &str, answers: impl IntoIterator<Item = Answer>) {
        self.answers.lock().unwrap().insert(part.to_owned(), answers.into_iter().collect());
    }

    /// Nothing is told any more.
    pub fn forget(&self) {
        self.answers.lock().unwrap().clear();
    }

    /// What was asked since this was last called.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }

    /// The same, as request lines.
    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }

    fn next(&self, line: &str) -> Answer {
        let mut answers = self.answers.lock().unwrap();
        let known = answers.iter_mut().filter(|(part, _)| line.contains(part.as_str()));
        match known.max_by_key(|(part, _)| part.len()) {
            Some((_, answers)) if answers.len() > 1 => answers.pop_front().unwrap(),
            Some((_, answers)) => answers[0].clone(),
            None => refusal(404, "M_UNRECOGNIZED"),
        }
    }
}

async fn answer(State(scripted): State<Scripted>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let authorization = request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
    let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let mut answer = scripted.next(&line);
    scripted.asked.lock().unwrap().push(Asked { line, authorization, body });
    while let Answer::After(wait, then) = answer {
        tokio::time::sleep(wait).await;
        answer = *then;
    }
    let status = |status: u16| Response::builder().status(status);
    match answer {
        Answer::Json(code, body) => status(code).body(body.to_string().into()),
        Answer::Text(code, body) => status(code).body(body.into()),
        Answer::RetryAfter(seconds) => status(429).header("retry-after", seconds).body("slow down".into()),
        Answer::Redirect(to) => status(302).header("location", to).body(Body::empty()),
        Answer::Huge(bytes) => status(200).body(" ".repeat(bytes).into()),
        Answer::Drip => status(200).body(Body::from_stream(drip())),
        Answer::Broken => {
            let half = [Ok(Bytes::from_static(b"{\"joined\":")), Err(std::io::Error::other("gone"))];
            status(200).body(Body::from_stream(futures_util::stream::iter(half)))
        }
        Answer::After(..) => unreachable!("unwrapped above"),
    }
    .unwrap()
}

fn drip() -> impl futures_util::Stream<Item = Result<Bytes, std::convert::Infallible>> {
    futures_util::stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Some((Ok(Bytes::from_static(b" ")), ()))
    })
}

/// A configuration for a homeserver at `address`; `more` is TOML that starts with a section.
pub fn config(address: SocketAddr, more: &str) -> Config {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "server_name = \"example.org\"\nhomeserver = \"http://{address}/\"\npublic_url = \"https://rtc.example.org\"\n{more}"
    );
    std::fs::write(file.path(), text).unwrap();
    Config::load(file.path(), std::iter::empty()).unwrap_or_else(|problems| panic!("{problems}"))
}

pub fn tokens() -> AppServiceTokens {
    let secret = |text: &str| Secret::new(text.to_owned()).unwrap();
    AppServiceTokens { as_token: secret(AS_TOKEN), hs_token: secret("hs-token-0123456789abcdefghijklmnop") }
}

/// Asks as what is named: the application service, the bot, both or neither.
pub fn client(address: SocketAddr, service: bool, bot: bool) -> Homeserver {
    let more = if bot { format!("[access]\nbot_access_token = \"{BOT_TOKEN}\"") } else { String::new() };
    Homeserver::new(&config(address, &more), service.then(tokens).as_ref()).unwrap()
}
