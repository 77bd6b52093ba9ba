//! The libraries as their users install them, and the frameworks that they serve.

use super::language::{Language, clients, tools};
use super::program::Program;
use crate::common::{Client, Dir, Process, Proxy, at, eventually, installed, skipped};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A tool of somebody else's, which may take its time beside other tests: up to five minutes.
fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("timeout");
    command.arg("300").arg(program).stdin(Stdio::null());
    command
}

/// Runs a tool to its end, which must be a good one, and returns what it has printed.
#[track_caller]
fn done(command: &mut Command) -> String {
    let output = command.output().expect("timeout, of the core utilities");
    let [said, complaint] =
        [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text));
    assert!(output.status.success(), "{command:?} ended with {}: {complaint}{said}", output.status);
    said.into_owned()
}

/// A library as somebody gets it: in a folder of its own, where its tool may leave what it likes.
fn copied(language: &str) -> (Dir, PathBuf) {
    let dir = Dir::new();
    let from = clients().join(language);
    done(tool("cp").arg("-a").args([&from, &dir.path().to_owned()]));
    let copy = dir.path().join(language);
    (dir, copy)
}

/// The interpreter of the folder of tools, if this can be imported there.
fn python(module: &str) -> Option<PathBuf> {
    let python = tools().join("python/bin/python");
    let text = python.to_str().expect("a path in UTF-8");
    installed(module, &[text, "-c", &format!("import {module}")]).then_some(python)
}

/// The packages of Node in the folder of tools, if this one is there.
fn node_modules(package: &str) -> Option<PathBuf> {
    let modules = tools().join("node/node_modules");
    if !modules.join(package).exists() {
        skipped(&format!("{package} is not installed"));
        return None;
    }
    Language::Node.is_here().then_some(modules)
}

/// Starts a program, waits until its bridges are parked, and asks for `/hello`, which must be
/// answered so.
#[track_caller]
fn serves(command: &mut Command, hello: &str) {
    let proxy = Proxy::start();
    command
        .env("BRIDGE_PROXIES", at(&proxy))
        .env("BRIDGE_HOSTS", "a.test")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null());
    let mut program = Process::spawn("the program", command);
    eventually("bridges are parked", || proxy.count("b") > 0);
    for _ in 0..3 {
        let answer = Client::get(&proxy, "a.test", "/hello").read_response();
        assert_eq!((answer.status(), answer.text()), (200, hello.to_owned()));
    }
    program.terminate();
    program.wait_exit();
    // A worker that has just been started may have had some that ended with it.
    proxy.await_no_bridges();
}

/// pip installs the package, and mypy accepts it and a program that uses it.
#[test]
fn python_package_is_installed_and_typed() {
    let Some(python) = python("setuptools") else { return };
    let (dir, copy) = copied("python");
    let site = dir.path().join("site");
    done(
        tool(&python)
            .args(["-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"])
            .args(["--no-index", "--disable-pip-version-check", "--target"])
            .args([&site, &copy]),
    );
    let version = done(
        tool(&python)
            .args(["-c", "import cloudbridge; print(cloudbridge.__file__, cloudbridge.VERSION)"])
            .env("PYTHONPATH", &site),
    );
    let expected = format!("{} {}", site.join("cloudbridge/__init__.py").display(), VERSION);
    assert_eq!(version.trim(), expected);
    assert!(site.join("cloudbridge/py.typed").exists());
    assert!(site.join(format!("cloudbridge-{VERSION}.dist-info")).exists());
    if self::python("mypy").is_none() {
        return;
    }
    dir.write(
        "program.py",
        "import asyncio\n\
         from cloudbridge import BridgeListener, serve_asyncio, serve_wsgi\n\
         from cloudbridge.uvicorn import run\n\n\
         async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:\n    \
             writer.close()\n\n\
         asyncio.run(serve_asyncio(handler, ['a.test:8079'], hosts='b.test', connections=4))\n\
         listener: BridgeListener = BridgeListener(['a.test'])\n\
         run('app:app', 'a.test', log_level='info')\n",
    );
    // What it has found out of other people's packages is kept.
    let cache = tools().join("mypy");
    let mypy = |what: &Path| {
        let mut command = tool(&python);
        command.args(["-m", "mypy", "--strict", "--cache-dir"]).arg(&cache);
        command.arg("--config-file").arg(copy.join("pyproject.toml"));
        done(command.arg(what).env("MYPYPATH", copy.join("package")));
    };
    mypy(&copy.join("package/cloudbridge"));
    mypy(&dir.path().join("program.py"));
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// npm packs and installs the package, and tsc accepts a program that uses it.
#[test]
fn node_package_is_installed_and_typed() {
    if !Language::Node.is_here() || !installed("npm", &["npm", "--version"]) {
        return;
    }
    let (dir, copy) = copied("node");
    let npm = || {
        let mut command = tool("npm");
        command.current_dir(dir.path()).args(["--offline", "--no-audit", "--no-fund", "--silent"]);
        command.env("npm_config_cache", dir.path().join("cache"));
        command
    };
    done(npm().arg("pack").arg(&copy));
    dir.write("package.json", "{}");
    done(npm().args(["install", &format!("./cloudbridge-{VERSION}.tgz")]));
    dir.write(
        "program.mjs",
        "import { bridge, serve, Bridges } from 'cloudbridge';\n\
         console.log(typeof bridge, typeof serve, typeof Bridges);\n",
    );
    let said = done(tool("node").arg(dir.path().join("program.mjs")));
    assert_eq!(said, "function function function\n");
    let Some(modules) = node_modules("typescript") else { return };
    dir.write(
        "program.mts",
        "import http from 'node:http';\nimport express from 'express';\nimport fastify from 'fastify';\n\
         import { bridge, serve, type Bridges } from 'cloudbridge';\n\
         const bridges: Bridges = bridge(express(), { proxies: ['a.test'], hosts: 'b.test', connections: 4 });\n\
         void bridges.close();\nserve(fastify());\nserve(http.createServer(), {});\n\
         // @ts-expect-error no such option\n\
         serve(http.createServer(), { port: 80 });\n",
    );
    for package in ["express", "fastify", "@types"] {
        let link = dir.path().join("node_modules").join(package);
        std::os::unix::fs::symlink(modules.join(package), link).expect("a link");
    }
    done(
        tool(modules.join(".bin/tsc"))
            .current_dir(dir.path())
            .args(["--noEmit", "--strict", "--module", "nodenext", "--skipLibCheck"])
            .args(["--types", "node", "program.mts"]),
    );
}

/// gem builds and installs the package.
#[test]
fn ruby_package_is_installed() {
    if !Language::Ruby.is_here() || !installed("gem", &["gem", "--version"]) {
        return;
    }
    let (dir, copy) = copied("ruby");
    let gems = dir.path().join("gems");
    let gem = || {
        let mut command = tool("gem");
        command.current_dir(&copy).env("GEM_HOME", &gems);
        command
    };
    done(gem().args(["build", "--quiet", "cloudbridge.gemspec"]));
    let name = format!("cloudbridge-{VERSION}.gem");
    done(gem().args(["install", "--quiet", "--local", "--no-document", &name]));
    let said = done(
        tool("ruby")
            .args([
                "-e",
                "require 'cloudbridge'; require 'cloudserver'; print CloudBridge::VERSION",
            ])
            .env("GEM_HOME", &gems),
    );
    assert_eq!(said, VERSION);
    if Language::Rack.is_here() {
        let handler = "require 'rack'; print Rack::Handler.get('cloudbridge')";
        let said = done(tool("ruby").args(["-e", handler]).env("GEM_HOME", &gems));
        assert_eq!(said, "CloudBridge::RackHandler");
    }
}

/// People have copied the one file into their programs.
#[test]
fn single_files_work_without_the_rest() {
    let dir = Dir::new();
    let files = ["python/cloudbridge.py", "node/cloudbridge.js", "ruby/cloudbridge.rb"];
    for file in files.into_iter().chain(["ruby/cloudserver.rb"]) {
        let copy = dir.path().join(file);
        std::fs::create_dir_all(copy.parent().expect("a folder")).expect("a folder");
        std::fs::copy(clients().join(file), copy).expect("a copy");
    }
    let folder = dir.path().to_str().expect("a path in UTF-8");
    for language in [Language::Node, Language::Wsgi, Language::Asyncio, Language::Ruby] {
        if language.is_here() {
            let proxy = Proxy::start();
            let _program = Program::start(language, &at(&proxy), 1, &[("CLIENTS", folder)]);
            proxy.await_count("b", 1);
            let answer = Client::get(&proxy, "a.test", "/").read_response();
            assert_eq!(answer.text(), "GET / for a.test");
        }
    }
}

#[test]
fn fastapi_is_served_by_uvicorn_from_the_command_line() {
    let Some(python) = python("fastapi") else { return };
    let dir = Dir::new();
    dir.write(
        "app.py",
        "from fastapi import FastAPI, Request\n\
         app = FastAPI()\n\n\
         @app.get('/hello')\n\
         async def hello(request: Request):\n    \
             return [request.client.host, request.url.scheme, request.headers['host']]\n",
    );
    let mut command = Command::new(python);
    command
        .args(["-m", "cloudbridge.uvicorn", "app:app", "--connections", "4", "--app-dir"])
        .arg(dir.path())
        .env("PYTHONPATH", clients().join("python/package"));
    serves(&mut command, r#"["127.0.0.1","http","a.test"]"#);
}

#[test]
fn flask_is_served_by_gunicorn_whose_workers_are_replaced() {
    let Some(python) = python("flask") else { return };
    let dir = Dir::new();
    dir.write(
        "app.py",
        "from flask import Flask, request\n\
         app = Flask(__name__)\n\n\
         @app.get('/hello')\n\
         def hello():\n    return 'hello ' + request.host\n",
    );
    let mut command = Command::new(python);
    command
        .args(["-m", "gunicorn", "-c", "python:cloudbridge.gunicorn", "--no-control-socket"])
        // The worker ends after its second request.
        .args(["--workers", "1", "--threads", "2", "--max-requests", "2", "--chdir"])
        .arg(dir.path())
        .arg("app:app")
        .env("PYTHONPATH", clients().join("python/package"));
    serves(&mut command, "hello a.test");
}

#[test]
fn a_url_is_no_proxy() {
    let says = |mut command: Command| {
        let output = command.current_dir(clients()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{said}");
        assert!(said.contains("this is a URL; write only its host and port"), "{said}");
    };
    if Language::Asyncio.is_here() {
        let mut command = Command::new(Language::Asyncio.program());
        command.env("PYTHONPATH", "python").env("PYTHONDONTWRITEBYTECODE", "1");
        command.args(["-c", "import cloudbridge; cloudbridge.BridgeListener(['http://p:80'])"]);
        says(command);
    }
    if Language::Node.is_here() {
        let mut command = Command::new(Language::Node.program());
        let program = "require('./node/cloudbridge.js').bridge(require('http').createServer(), \
                       { proxies: ['http://p:80'] })";
        command.args(["-e", program]);
        says(command);
    }
    if Language::Rack.is_here() {
        let mut command = Command::new("ruby");
        let program = "require './ruby/cloudbridge/rack_handler'; CloudBridge::RackHandler.place('http://p:80')";
        command.args(["-e", program]);
        says(command);
    }
}

#[test]
fn gunicorn_takes_the_module_for_a_worker_class() {
    let Some(python) = python("gunicorn") else { return };
    let dir = Dir::new();
    dir.write(
        "app.py",
        "def app(environ, start_response):\n    \
             start_response('200 OK', [])\n    \
             return [b'hello ', environ['HTTP_HOST'].encode()]\n",
    );
    let mut command = Command::new(python);
    command
        .args(["-m", "gunicorn", "-k", "cloudbridge.gunicorn", "app:app", "--bind"])
        .arg(format!("unix:{}", dir.path().join("own.sock").display()))
        .arg("--chdir")
        .arg(dir.path())
        .env("PYTHONPATH", clients().join("python/package"));
    serves(&mut command, "hello a.test");
}

#[test]
fn gunicorn_ends_if_there_is_no_proxy() {
    let Some(python) = python("gunicorn") else { return };
    for (proxies, problem) in
        [("", "no proxies: set BRIDGE_PROXIES"), ("http://p", "bad proxy 'http://p'")]
    {
        let mut command = Command::new(&python);
        command
            .args(["-m", "gunicorn", "-c", "python:cloudbridge.gunicorn", "no:app"])
            .env("BRIDGE_PROXIES", proxies)
            .env("PYTHONPATH", clients().join("python/package"));
        let output = command.output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("cloudbridge: {problem}")), "{said}");
    }
}

#[test]
fn express_and_fastify_are_served_in_one_line() {
    let Some(modules) = node_modules("fastify") else { return };
    let dir = Dir::new();
    let module = clients().join("node/cloudbridge.js");
    for (name, hello) in [
        (
            "express",
            "app.get('/hello', (request, response) => response.send('hello ' + request.hostname));",
        ),
        ("fastify", "app.get('/hello', async (request) => 'hello ' + request.hostname);"),
    ] {
        dir.write(
            &format!("{name}.js"),
            &format!(
                "const {{ serve }} = require('{}');\nconst app = require('{name}')();\n{hello}\nserve(app);\n",
                module.display()
            ),
        );
        let mut command = Command::new("node");
        command.arg(dir.path().join(format!("{name}.js"))).env("NODE_PATH", &modules);
        serves(&mut command, "hello a.test");
    }
}

/// The package `ws`, attached to the server of an express application.
#[test]
fn ws_is_served_in_one_line() {
    let Some(modules) = node_modules("ws") else { return };
    let (proxy, dir) = (Proxy::start(), Dir::new());
    let module = clients().join("node/cloudbridge.js");
    dir.write(
        "app.js",
        &format!(
            "const {{ serve }} = require('{}');\nconst {{ WebSocketServer }} = require('ws');\n\
             const server = require('http').createServer(require('express')());\n\
             new WebSocketServer({{ server }}).on('connection', (peer) => peer.on('message', (text) => peer.send(text, {{ binary: false }})));\n\
             serve(server, {{ connections: 1 }});\n",
            module.display()
        ),
    );
    let mut command = Command::new("node");
    command.arg(dir.path().join("app.js")).env("NODE_PATH", &modules);
    let _program = Process::spawn(
        "the program",
        command.env("BRIDGE_PROXIES", at(&proxy)).stdin(Stdio::null()),
    );
    proxy.await_count("b", 1);
    let mut sockets: Vec<Client> = (0..3).map(|_| super::node::websocket(&proxy)).collect();
    for socket in &mut sockets {
        super::node::echoes(socket);
    }
    proxy.await_count("b", 1);
}
