//! A user with a browser: headless Chromium, driven by WebDriver, if there is a `chromedriver`; otherwise an HTTP client that
//! submits the page's form.

use sandbox::pace::PATIENCE;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use platform::environment::optional;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

/// The JSON key of an element's id in WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

pub(crate) enum Visitor {
    /// What the browser leaves behind is in the folder.
    Browser {
        http: Client,
        session: String,
        driver: Child,
        _folder: TempDir,
    },
    Reader {
        http: Client,
        url: Option<Url>,
        page: String,
        typed: Vec<(String, String)>,
    },
}

/// Starts `chromedriver`; `None` if it is not installed. It takes a free port of IPv4 and then ends if the same port of IPv6 is
/// in use, so a start that ends is tried again.
async fn chromedriver(folder: &Path) -> Option<(Child, String)> {
    for _ in 0..10 {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").env("TMPDIR", folder).stdout(Stdio::piped()).kill_on_drop(true);
        let mut driver = command.spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        while let Some(line) = lines.next_line().await.unwrap() {
            if let Some((_, port)) = line.split_once("successfully on port ") {
                return Some((driver, port.trim_end_matches('.').to_owned()));
            }
        }
    }
    panic!("chromedriver ended ten times before it reported its port");
}

impl Visitor {
    pub(crate) async fn start() -> Self {
        let http = Client::new();
        let folder = tempfile::tempdir().unwrap();
        let Some((driver, port)) = chromedriver(folder.path()).await else {
            eprintln!("no chromedriver: pages are read by an HTTP client");
            return Visitor::Reader { http, url: None, page: String::new(), typed: Vec::new() };
        };
        let options = json!({ "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"] });
        let wanted = json!({ "capabilities": { "alwaysMatch": { "goog:chromeOptions": options } } });
        let made: Value = http
            .post(format!("http://127.0.0.1:{port}/session"))
            .json(&wanted)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let id = made["value"]["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {made}"));
        Visitor::Browser { session: format!("http://127.0.0.1:{port}/session/{id}"), http, driver, _folder: folder }
    }

    pub(crate) async fn open(&mut self, address: &str) {
        match self {
            Visitor::Browser { http, session, .. } => {
                webdriver(http, session, "url", json!({ "url": address })).await;
            }
            Visitor::Reader { http, url, page, .. } => {
                let answer = http.get(address).send().await.unwrap();
                (*url, *page) = (Some(answer.url().clone()), answer.text().await.unwrap());
            }
        }
    }

    /// Types into the field with that name.
    pub(crate) async fn write(&mut self, name: &str, text: &str) {
        match self {
            Visitor::Browser { http, session, .. } => {
                let css = json!({ "using": "css selector", "value": format!("input[name={name}]") });
                let found = webdriver(http, session, "element", css).await;
                let field = found[ELEMENT].as_str().unwrap_or_else(|| panic!("no field {name}: {found}")).to_owned();
                webdriver(http, session, &format!("element/{field}/value"), json!({ "text": text })).await;
            }
            Visitor::Reader { page, typed, .. } => {
                assert!(page.contains(&format!("name=\"{name}\"")), "no field {name}: {page}");
                typed.push((name.to_owned(), text.to_owned()));
            }
        }
    }

    /// Presses the page's button, and waits for the next page.
    pub(crate) async fn press(&mut self) {
        match self {
            Visitor::Browser { http, session, .. } => {
                let found =
                    webdriver(http, session, "element", json!({ "using": "css selector", "value": "button" })).await;
                let button = found[ELEMENT].as_str().unwrap_or_else(|| panic!("no button: {found}")).to_owned();
                webdriver(http, session, &format!("element/{button}/click"), json!({})).await;
                // The click returns before the next page is loaded. Once it is loaded, the button is gone.
                let name = format!("{session}/element/{button}/name");
                let gone = async {
                    while http.get(&name).send().await.unwrap().status().is_success() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                };
                tokio::time::timeout(PATIENCE, gone).await.expect("the button leads somewhere");
            }
            Visitor::Reader { http, url, page, typed } => {
                let mut fields: Vec<(String, String)> = page
                    .split("<input ")
                    .skip(1)
                    .filter(|input| attribute(input, "type") == "hidden")
                    .map(|input| (attribute(input, "name"), attribute(input, "value")))
                    .collect();
                fields.append(typed);
                let form = page.split("<form ").nth(1).expect("a form");
                let target = url.as_ref().unwrap().join(&attribute(form, "action")).unwrap();
                let form = form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
                let ask = http.post(target).header("content-type", "application/x-www-form-urlencoded").body(form);
                let answer = ask.send().await.unwrap();
                (*url, *page) = (Some(answer.url().clone()), answer.text().await.unwrap());
            }
        }
    }

    pub(crate) async fn text(&self) -> String {
        match self {
            Visitor::Browser { http, session, .. } => {
                let asked = http.get(format!("{session}/source")).send().await.unwrap();
                asked.json::<Value>().await.unwrap()["value"].as_str().unwrap().to_owned()
            }
            Visitor::Reader { page, .. } => page.clone(),
        }
    }

    /// Waits until the page contains the text. In a browser the page reloads itself; the HTTP client loads it again.
    pub(crate) async fn wait_for(&mut self, part: &str) -> String {
        for _ in 0..3000 {
            let text = self.text().await;
            if text.contains(part) {
                return text;
            }
            let again = match self {
                Visitor::Browser { .. } => None,
                Visitor::Reader { url, .. } => url.clone(),
            };
            if let Some(url) = again {
                self.open(url.as_str()).await;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the page never contained {part:?}: {}", self.text().await);
    }

    /// The result of a script in the page; None without a browser.
    pub(crate) async fn script(&self, script: &str) -> Option<Value> {
        let Visitor::Browser { http, session, .. } = self else { return None };
        Some(webdriver(http, session, "execute/sync", json!({ "script": script, "args": [] })).await)
    }

    /// Writes a picture of the whole page into the folder `DROVER_SCREENSHOTS`, if that is set.
    pub(crate) async fn picture(&self, name: &str) {
        let (Visitor::Browser { http, session, .. }, Some(folder)) = (self, optional("DROVER_SCREENSHOTS")) else {
            return;
        };
        let whole = json!({ "cmd": "Page.captureScreenshot", "params": { "captureBeyondViewport": true } });
        let picture = webdriver(http, session, "goog/cdp/execute", whole).await;
        let png = STANDARD.decode(picture["data"].as_str().unwrap()).unwrap();
        std::fs::write(Path::new(&folder).join(format!("{name}.png")), png).unwrap();
    }

    /// Emulates another screen, with a command of Chromium's DevTools protocol.
    pub(crate) async fn emulate(&self, command: &str, parameters: Value) {
        if let Visitor::Browser { http, session, .. } = self {
            webdriver(http, session, "goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await;
        }
    }

    /// Closes the browser.
    pub(crate) async fn leave(self) {
        match self {
            Visitor::Browser { http, session, mut driver, .. } => {
                http.delete(session).send().await.unwrap();
                driver.kill().await.unwrap();
            }
            Visitor::Reader { .. } => {}
        }
    }
}

async fn webdriver(http: &Client, session: &str, what: &str, body: Value) -> Value {
    let answer = http.post(format!("{session}/{what}")).json(&body).send().await.unwrap();
    let mut said: Value = answer.json().await.unwrap();
    assert!(said["value"]["error"].is_null(), "{what}: {said}");
    said["value"].take()
}

/// The value of an attribute, quoted or not, of the tag that the text begins in.
fn attribute(tag: &str, name: &str) -> String {
    let rest = tag.split(&format!("{name}=")).nth(1).unwrap_or_default();
    let value = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next().unwrap_or_default(),
        None => rest.split([' ', '>']).next().unwrap_or_default(),
    };
    value.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&#39;", "'").replace("&amp;", "&")
}
