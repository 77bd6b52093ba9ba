//! A client gets a file: one that its request means, or one that a backend has named.

use std::io;
use std::sync::Arc;

use crate::exchange::{NamedFile, Reuse, Running, Traffic};
use crate::files::{Asked, Body, Kept, OpenFile, Opened, Planned, Read, Root, Way, name, response};
use crate::http::{Reply, request};
use crate::net::token::Token;
use crate::time::Micros;

use super::access_log::{By, End as Ending, Phase};
use super::client::RETRY_AFTER;
use super::closing::End;
use super::file_lookup::{FromFile, Looked, ToOpen};
use super::reason::Reason;
use super::role::{Begun, Role};
use super::sending::{About, BUSY, COPIED, NamedRequest, Opening, Pumped, Sending, Then};
use super::state::Mail;
use super::worker::Worker;

/// The answer when the disk has said nothing for as long as a backend may take.
const SILENT: &str = "the file could not be read in time";

/// The answer when a backend has named a file that is not there.
const NONE: &str = "there is no such file";

impl Worker {
    /// A request is answered from a file; the head of the response is in the workspace.
    pub(super) fn serve_file(&mut self, key: usize, from: FromFile) {
        let FromFile { planned, request, is_head, close, received } = from;
        let (connection, ws) = self.conns.split(key);
        connection.conn.input.consume(request, &mut ws.pool);
        let heads = ws.out.len() as u64;
        let traffic = Traffic { request: request as u64, heads, body: 0 };
        let about = About { status: planned.status, is_head, close, received, traffic };
        self.send_planned(key, planned, about);
    }

    /// Sends the head in the workspace and what follows it.
    fn send_planned(&mut self, key: usize, planned: Planned, mut about: About) {
        let (connection, ws) = self.conns.split(key);
        let head = ws.out.len();
        let small = match &planned.body {
            Body::Nothing => Some(0..0),
            Body::Part(range) if range.end - range.start <= COPIED => Some(range.clone()),
            Body::Part(_) | Body::Parts(_) => None,
        };
        if let Some(range) = small {
            let length = (range.end - range.start) as usize;
            ws.out.resize(head + length, 0);
            if planned.file.read_at_once(&mut ws.out[head..], range.start) == Read::Whole {
                ws.traffic.sent += ws.out.len() as u64;
                about.traffic.body = length as u64;
                return match connection.conn.send(&ws.out, &mut ws.pool) {
                    Ok(_) => self.file_sent(key, &about),
                    Err(_) => self.end_file(key, &about, (By::Client, Phase::Data), End::Close),
                };
            }
        }
        let sending = Some(Box::new(Sending::new(planned, &ws.out[..head], about)));
        self.change_role(key, |role| role.with_client(|client| Role::Sending { client, sending }));
        self.conns.set_deadline(key, self.config.settings.body_timeout);
        self.go_on_sending(key);
    }

    /// A client that gets a file can take more, or has sent something.
    pub(super) fn go_on_sending(&mut self, key: usize) {
        let Some(Role::Sending { sending, .. }) = self.conns.role_mut(key) else { return };
        let Some(mut sending) = sending.take() else { return };
        let (connection, ws) = self.conns.split(key);
        if connection.conn.is_broken() {
            return self.end_file(key, &sending.about, (By::Client, Phase::Data), End::Close);
        }
        if sending.waits {
            return self.put_sending(key, sending);
        }
        let before = (sending.about.traffic.body, connection.conn.output.len());
        let Ok(pumped) = sending.pump(&mut connection.conn, ws) else {
            return self.end_file(key, &sending.about, (By::Client, Phase::Data), End::Close);
        };
        let progress = (sending.about.traffic.body, connection.conn.output.len()) != before;
        match pumped {
            Pumped::Done => self.file_sent(key, &sending.about),
            Pumped::Waiting | Pumped::Busy => {
                if progress {
                    connection.note_queue();
                    self.conns.set_deadline(key, self.config.settings.body_timeout);
                }
                if matches!(pumped, Pumped::Busy) {
                    self.conns.requeue(key);
                }
                self.put_sending(key, sending);
            }
            Pumped::ToRead(file, offset, length) => {
                let token = connection.token();
                if self.read_by_thread(token, &file, offset, length) {
                    self.conns.set_deadline(key, self.config.settings.response_timeout);
                    self.put_sending(key, sending);
                } else {
                    self.give_up_file(key, &sending, (Reason::FilesBusy, 503, BUSY));
                }
            }
            Pumped::Cut => {
                log::debug!("a file became shorter while it was sent");
                self.end_file(key, &sending.about, (By::Proxy, Phase::Data), End::Reset);
            }
        }
    }

    fn put_sending(&mut self, key: usize, own: Box<Sending>) {
        if let Some(Role::Sending { sending, .. }) = self.conns.role_mut(key) {
            *sending = Some(own);
        }
    }

    /// Has a thread read a part of a file for a client. False if too much waits already.
    fn read_by_thread(&self, client: Token, file: &Arc<OpenFile>, at: u64, length: usize) -> bool {
        self.stats().file_reads.add(1);
        let (shared, index, own) = (Arc::clone(&self.shared), self.index, Arc::clone(file));
        file.readers.run(move || {
            let read = own.read_waiting(at, length);
            shared.mailboxes[index].send(Mail::FileRead(client, read));
        })
    }

    /// A thread has read for a client.
    pub(super) fn file_read(&mut self, client: Token, read: io::Result<Vec<u8>>) {
        let Some(key) = self.conns.find(client) else { return };
        let Some(Role::Sending { sending, .. }) = self.conns.role_mut(key) else { return };
        let Some(own) = sending.as_mut().filter(|own| own.waits) else { return };
        match read {
            Ok(bytes) => {
                own.take_read(bytes);
                self.conns.set_deadline(key, self.config.settings.body_timeout);
                self.go_on_sending(key);
            }
            Err(error) => {
                log::debug!("a file cannot be read on: {error}");
                let about = own.about;
                self.end_file(key, &about, (By::Proxy, Phase::Data), End::Reset);
            }
        }
    }

    /// The deadline of a client that gets a file has passed. One that takes bytes slowly is given more
    /// time.
    pub(super) fn sending_timed_out(&mut self, key: usize) {
        let Some(Role::Sending { sending, .. }) = self.conns.role_mut(key) else { return };
        let Some(own) = sending.take() else { return };
        if own.waits {
            return self.give_up_file(key, &own, (Reason::FileTimeout, 504, SILENT));
        }
        if self.conns[key].note_queue() {
            self.conns.set_deadline(key, self.config.settings.body_timeout);
            return self.put_sending(key, own);
        }
        self.end_file(key, &own.about, (By::ClientTimeout, Phase::Data), End::Reset);
    }

    /// A file cannot be sent, or not on.
    fn give_up_file(&mut self, key: usize, sending: &Sending, why: (Reason, u16, &str)) {
        if !sending.is_untouched() {
            return self.end_file(key, &sending.about, (By::Proxy, Phase::Data), End::Reset);
        }
        self.refuse_file(key, sending.about.is_head, false, why);
    }

    /// A response from a file has been given to the client's connection.
    fn file_sent(&mut self, key: usize, about: &About) {
        self.stats().files.add(1);
        let took = self.conns.now().micros_since(about.received);
        self.stats().answered(about.status, took);
        self.record_end(key, about.status, about.traffic, Ending::Done, None);
        if about.close || !self.is_serving() {
            self.end(key, End::Linger);
        } else {
            self.next_request(key);
        }
    }

    /// Ends a client in the middle of a file.
    fn end_file(&mut self, key: usize, about: &About, (by, phase): (By, Phase), how: End<'_>) {
        let end = Ending::By(by, phase);
        self.record_end(key, about.status, about.traffic, end, None);
        self.end(key, how);
    }

    /// Ends every client in the middle of a file: the time for it is over.
    pub(super) fn cut_files(&mut self) {
        for key in self.conns.keys_with(|role| matches!(role, Role::Sending { .. })) {
            if let Some(Role::Sending { sending: Some(sending), .. }) = self.conns.role(key) {
                let about = sending.about;
                self.end_file(key, &about, (By::Proxy, Phase::Data), End::Reset);
            }
        }
    }

    /// A thread must open the file that a request may mean. The request stays in the input until then.
    pub(super) fn open_later(&mut self, key: usize, to_open: ToOpen, received: Micros) {
        let ToOpen { root, name, at, is_head } = to_open;
        self.await_file(key, Opening { then: Then::Decide { at }, root, name, is_head, received });
    }

    fn await_file(&mut self, key: usize, opening: Opening) {
        let token = self.conns[key].token();
        let (shared, index) = (Arc::clone(&self.shared), self.index);
        let (root, name) = (Arc::clone(&opening.root), opening.name.clone());
        let (is_open, is_head) = (opening.then.is_open(), opening.is_head);
        self.stats().file_reads.add(1);
        let runs = opening.root.readers.run(move || {
            let opened = root.find(&name, Way::Waiting, is_open);
            shared.mailboxes[index].send(Mail::FileOpened(token, opened));
        });
        let opening = Box::new(opening);
        self.change_role(key, |role| role.with_client(|client| Role::Opening { client, opening }));
        if runs {
            self.conns.set_deadline(key, self.config.settings.response_timeout);
        } else {
            self.refuse_file(key, is_head, is_open, (Reason::FilesBusy, 503, BUSY));
        }
    }

    /// A thread has opened a file for a client, or not.
    pub(super) fn file_opened(&mut self, client: Token, opened: Opened) {
        let Some(key) = self.conns.find(client) else { return };
        if !matches!(self.conns.role(key), Some(Role::Opening { .. })) {
            return;
        }
        let mut taken = None;
        // Either goes on with the client as it is between two requests.
        self.change_role(key, |role| match role {
            Role::Opening { client, opening } => {
                taken = Some(opening);
                Role::ReadingHead { client, retry: None }
            }
            other => other,
        });
        let Some(opening) = taken else { return };
        let Opening { then, root, name, received, .. } = *opening;
        let now = self.conns.now().millis();
        self.files.note_looked((&root, &name), then.is_open(), &opened, now);
        match then {
            Then::Decide { at } => self.dispatch_looked(key, Some(Looked { at, opened, received })),
            Then::Answer(named) => self.answer_named(key, *named, (root, name), opened),
        }
    }

    /// A file has not been opened for as long as a backend may take.
    pub(super) fn opening_timed_out(&mut self, key: usize) {
        let Some(Role::Opening { opening, .. }) = self.conns.role(key) else { return };
        let (holds_request, is_head) = (opening.then.is_open(), opening.is_head);
        self.refuse_file(key, is_head, holds_request, (Reason::FileTimeout, 504, SILENT));
    }

    /// The client of a file that is being opened has sent something, or has closed.
    pub(super) fn watch_opening(&mut self, key: usize) {
        if self.conns[key].conn.is_broken() {
            self.end(key, End::Close);
        }
    }

    /// A file cannot be opened or read, and nothing has been sent.
    fn refuse_file(
        &mut self,
        key: usize,
        head_only: bool,
        holds_request: bool,
        (reason, status, text): (Reason, u16, &str),
    ) {
        let retry_after = Some(RETRY_AFTER);
        let reply = Reply { head_only, retry_after, ..Reply::new(status, text) };
        let body = self.body_of(key, reason, &reply, holds_request);
        self.reject_with(key, reason, reply, body.as_ref());
    }

    /// The response of a backend names a file: the client gets that. The bridge is released by the caller.
    pub(super) fn serve_named(
        &mut self,
        running: &mut Running<Begun>,
        file: NamedFile,
        requester: Reuse,
    ) {
        let key = running.requester.key();
        let Some(Role::Requesting { ticket, .. }) = self.conns.role(key) else { return };
        let received = ticket.pos.since();
        let (exchange, (connection, ws)) = (&mut running.exchange, self.conns.split(key));
        let (meta, input) = (*exchange.meta(), connection.conn.input.bytes());
        let head = match exchange.holds_request() {
            true => input[..meta.head.min(input.len())].to_vec(),
            false => Vec::new(),
        };
        let traffic = exchange.traffic();
        exchange.release_request(&mut connection.conn, &mut ws.pool);
        let close = !matches!(requester, Reuse::Keep(_)) || !self.is_serving();
        let named = NamedRequest {
            kept: Kept { fields: file.fields, content_type: file.content_type },
            head,
            version: meta.version,
            about: About { status: 0, is_head: meta.to_head, close, received, traffic },
        };
        let root = meta.sends_files.and_then(|id| self.config.files.by_id(id)).cloned();
        let found = root.and_then(|root| {
            let mut path = Vec::new();
            let name = match file.is_uri {
                true => name::read_redirect(&file.name, &mut path).then(|| path[1..].to_vec()),
                false => root.name_of(&file.name),
            };
            name.map(|name| (root, name))
        });
        let Some((root, name)) = found else {
            let shown = String::from_utf8_lossy(&file.name);
            log::debug!("a backend names {shown:?}, which is not below sendfile-root");
            return self.refuse_named(key, &named);
        };
        match self.files.open_named(&root, &name, self.conns.now().millis()) {
            Opened::NotNow => {
                let (is_head, then) = (meta.to_head, Then::Answer(Box::new(named)));
                self.await_file(key, Opening { then, root, name, is_head, received });
            }
            opened => self.answer_named(key, named, (root, name), opened),
        }
    }

    fn answer_named(
        &mut self,
        key: usize,
        named: NamedRequest,
        (root, name): (Arc<Root>, Vec<u8>),
        opened: Opened,
    ) {
        let file = match opened {
            Opened::File(file) => file,
            Opened::Shortage => {
                let why = (Reason::FilesBusy, 503, BUSY);
                return self.refuse_file(key, named.about.is_head, false, why);
            }
            Opened::Missing | Opened::NotNow => {
                let (root, name) = (root.path.display(), String::from_utf8_lossy(&name));
                log::debug!("a backend names {name:?}, which is not in {root}");
                return self.refuse_named(key, &named);
            }
        };
        let NamedRequest { kept, head, version, mut about } = named;
        let mut storage = request::storage();
        let parsed = request::parse(&head, &mut storage, &self.exchange_config.limits);
        // It was whole when it came.
        let request = parsed.ok().flatten();
        let asked = Asked {
            fields: request.as_ref().map_or(&[], |request| request.fields),
            is_get: request.as_ref().is_some_and(|request| request.method == "GET"),
            is_head: about.is_head,
            version,
            close: about.close,
            cache_control: None,
            kept: Some(&kept),
        };
        let out = &mut self.conns.ws.out;
        out.clear();
        let planned = response::plan(&file, &asked, out);
        about.status = planned.status;
        about.traffic.heads += out.len() as u64;
        self.send_planned(key, planned, about);
    }

    /// A backend has named a file that is not there.
    fn refuse_named(&mut self, key: usize, named: &NamedRequest) {
        let NamedRequest { version, about, .. } = named;
        let (head_only, version) = (about.is_head, *version);
        let reply = Reply { head_only, version, ..Reply::new(404, NONE) };
        let body = self.body_of(key, Reason::NoFile, &reply, false);
        if about.close {
            self.reject_with(key, Reason::NoFile, reply, body.as_ref());
        } else {
            self.answer_and_go_on(key, Reason::NoFile, reply, body.as_ref());
        }
    }
}
