//! Chromium without a window, driven over the DevTools protocol on a pair of pipes: nothing but the
//! browser itself is needed for it.

use super::{Dir, installed};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a browser may be in use. A passing test needs a few hundredths of it.
const LIFE: Duration = Duration::from_secs(300);

/// How long [`Browser::wait`] waits. It is more than [`super::DEADLINE`], since a browser on a busy
/// machine is very slow, and less than [`LIFE`], since tests with a browser run one after the other:
/// if all of them fail, they should come to an end.
const WAIT_TIMEOUT: Duration = Duration::from_secs(120);

/// How often [`Browser::wait`] looks again.
const POLL: Duration = Duration::from_millis(20);

/// One at a time: a browser has a dozen processes.
static ONE: Mutex<()> = Mutex::new(());

/// A browser with one page. It ends with this, and whatever it started with it.
pub struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: Receiver<Value>,
    session: Option<String>,
    last: u64,
    until: Instant,
    complaints: Vec<String>,
    dir: Dir,
    _one: MutexGuard<'static, ()>,
}

impl Browser {
    /// Starts one with an empty page, unless it is not installed, which is said.
    #[track_caller]
    pub fn start() -> Option<Browser> {
        const NAME: &str = "chromium";
        if !installed("Chromium", &[NAME, "--version"]) {
            return None;
        }
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = Dir::new();
        // The browser reads commands from descriptor 3 and writes to descriptor 4.
        let script = "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null";
        let mut command = Command::new("sh");
        command.args(["-c", script, NAME, "--headless", "--remote-debugging-pipe"]);
        // As root, which tests in a container run as, it has no sandbox.
        command.args([
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
        ]);
        command.args(["--no-first-run", "--no-default-browser-check", "--disable-extensions"]);
        command.args(["--disable-background-networking", "--disable-component-update"]);
        command.args(["--disable-sync", "--disable-breakpad", "--hide-scrollbars"]);
        command.arg(format!("--user-data-dir={}", dir.path().join("profile").display()));
        command.arg("about:blank").stdin(Stdio::piped()).stdout(Stdio::piped());
        // A process group of its own, so that all its processes can be ended together.
        let mut child = command.process_group(0).spawn().expect("sh");
        let commands = child.stdin.take().expect("a pipe");
        let mut answers = BufReader::new(child.stdout.take().expect("a pipe"));
        let (sender, messages) = channel();
        std::thread::spawn(move || {
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|count| count > 0) {
                message.pop();
                let read = serde_json::from_slice(&message).expect("JSON from the browser");
                if sender.send(read).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let until = Instant::now() + LIFE;
        let mut browser = Browser {
            child,
            commands,
            messages,
            session: None,
            last: 0,
            until,
            complaints: Vec::new(),
            dir,
            _one: one,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", attach);
        browser.session = Some(attached["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page", "Runtime", "Log"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        browser.size(1280, 800);
        Some(browser)
    }

    /// Sends a command and waits for its result.
    #[track_caller]
    pub fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let sent = self.commands.write_all(format!("{command}\0").as_bytes());
        sent.unwrap_or_else(|error| panic!("the browser is gone: {error}"));
        loop {
            let left = self.until.saturating_duration_since(Instant::now());
            let mut message = match self.messages.recv_timeout(left) {
                Ok(message) => message,
                Err(RecvTimeoutError::Timeout) => panic!("{method} has no answer in {LIFE:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the browser ended: {method}"),
            };
            if message["id"] == self.last {
                assert!(message["error"].is_null(), "{method}: {}", message["error"]);
                return message["result"].take();
            }
            self.note(&message);
        }
    }

    /// Notes what a page should not do. A request that fails is what some tests are about.
    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        let complaint = match message["method"].as_str().unwrap_or_default() {
            "Runtime.exceptionThrown" => &params["exceptionDetails"],
            "Runtime.consoleAPICalled" => &params["args"],
            "Log.entryAdded" if params["entry"]["source"] == "network" => return,
            "Log.entryAdded" if params["entry"]["level"] == "verbose" => return,
            "Log.entryAdded" => &params["entry"],
            "Page.javascriptDialogOpening" | "Inspector.targetCrashed" => params,
            _ => return,
        };
        self.complaints.push(complaint.to_string());
    }

    /// Goes to a page.
    #[track_caller]
    pub fn open(&mut self, url: &str) {
        let result = self.ask("Page.navigate", json!({ "url": url }));
        assert!(result["errorText"].is_null(), "{url}: {result}");
        self.wait("document.readyState === 'complete'");
    }

    /// The value of an expression in the page.
    #[track_caller]
    pub fn eval(&mut self, expression: &str) -> Value {
        let params =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut result = self.ask("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].take()
    }

    /// Waits until an expression in the page has a value that is true or not empty; returns it.
    #[track_caller]
    pub fn wait(&mut self, expression: &str) -> Value {
        let until = (Instant::now() + WAIT_TIMEOUT).min(self.until);
        loop {
            let value = self.eval(expression);
            if !matches!(&value, Value::Null | Value::Bool(false)) && value != "" && value != 0 {
                return value;
            }
            if Instant::now() >= until {
                // It is to say still what it shows.
                self.until += super::DEADLINE;
                let text = self.eval("document.body.innerText");
                let complaints = &self.complaints;
                panic!("not in time: {expression}\ncomplaints: {complaints:?}\n{text}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// The text of the element that a selector names.
    #[track_caller]
    pub fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({}).innerText", quoted(selector)));
        text.as_str().expect("a text").to_owned()
    }

    /// Waits until the element that a selector names has this text in it.
    #[track_caller]
    pub fn wait_text(&mut self, selector: &str, text: &str) {
        let (selector, text) = (quoted(selector), quoted(text));
        self.wait(&format!("document.querySelector({selector})?.innerText.includes({text})"));
    }

    /// Clicks on the middle of the element that a selector names, with the mouse, once nothing is
    /// in front of it.
    #[track_caller]
    pub fn click(&mut self, selector: &str) {
        let place = self.wait(&format!(
            "(() => {{
                const element = document.querySelector({});
                if (!element || element.disabled) return null;
                element.scrollIntoView({{ block: 'nearest' }});
                const box = element.getBoundingClientRect();
                const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
                return element.contains(document.elementFromPoint(x, y)) && [x, y];
            }})()",
            quoted(selector)
        ));
        for kind in ["mouseMoved", "mousePressed", "mouseReleased"] {
            let button = if kind == "mouseMoved" { "none" } else { "left" };
            let mut event = json!({ "type": kind, "button": button, "clickCount": 1 });
            (event["x"], event["y"]) = (place[0].clone(), place[1].clone());
            self.ask("Input.dispatchMouseEvent", event);
        }
    }

    /// Takes the mouse away from everything.
    pub fn point_nowhere(&mut self) {
        let event = json!({ "type": "mouseMoved", "x": 0, "y": 0 });
        self.ask("Input.dispatchMouseEvent", event);
    }

    /// Types into what has the focus.
    pub fn type_text(&mut self, text: &str) {
        self.ask("Input.insertText", json!({ "text": text }));
    }

    /// Presses a key, such as `Enter`.
    pub fn press(&mut self, key: &str) {
        let (code, text) = match key {
            "Enter" => (13, "\r"),
            "Tab" => (9, ""),
            "Escape" => (27, ""),
            "ArrowRight" => (39, ""),
            "ArrowDown" => (40, ""),
            _ => (0, key),
        };
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" {
                event["text"] = text.into();
            }
            self.ask("Input.dispatchKeyEvent", event);
        }
    }

    /// The size of the page, in its own pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let mut size = json!({ "width": width, "height": height, "deviceScaleFactor": 1 });
        size["mobile"] = (width < 600).into();
        self.ask("Emulation.setDeviceMetricsOverride", size);
    }

    /// Whether the person prefers `light` or `dark`. Nothing moves, for the pictures.
    pub fn colours(&mut self, scheme: &str) {
        let features = json!([
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Puts a picture of the page into a file of this name beside what cargo builds, for people.
    #[track_caller]
    pub fn picture(&mut self, name: &str) {
        let picture = self.ask("Page.captureScreenshot", json!({ "format": "png" }));
        let bytes = from_base64(picture["data"].as_str().expect("a picture"));
        assert!(bytes.starts_with(b"\x89PNG\r\n"), "{name} is no picture");
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.png"));
        std::fs::write(&path, bytes).expect("a file for the picture");
    }

    /// Everything so far that a page should not do: errors, violations of its policy, dialogs.
    #[track_caller]
    pub fn complaints(&mut self) -> Vec<String> {
        // What came before the answer has been noted.
        self.eval("0");
        std::mem::take(&mut self.complaints)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let group = self.child.id();
        // All its processes are in the group that was made for it. None may be left.
        let line = format!("kill -s KILL -- -{group}");
        let _ = Command::new("sh").args(["-c", &line]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Its processes may still write there while they end.
        let _ = std::fs::remove_dir_all(self.dir.path());
    }
}

/// A text as JavaScript has it.
pub fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// RFC 4648 section 4.
fn from_base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        _ => 63,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text.trim_end_matches('=').as_bytes().chunks(4) {
        let word = four.iter().fold(0u32, |word, byte| word << 6 | u32::from(digit(*byte)));
        let word = word << (6 * (4 - four.len()));
        bytes.extend_from_slice(&word.to_be_bytes()[1..four.len()]);
    }
    bytes
}
