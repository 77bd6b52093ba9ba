'use strict';
/*
 * cloudbridge for Node (16 or later, no packages): an http.Server that has no port.
 *
 *     const http = require('node:http');
 *     const { bridge } = require('./cloudbridge.js');
 *
 *     const server = http.createServer((request, response) => response.end('hello\n'));
 *     const bridges = bridge(server, {
 *       proxies: ['proxy.example.com:8079'],
 *       hosts: ['app.example.com'],
 *     });
 *     process.on('SIGTERM', () => bridges.close());
 *
 * An express application, a fastify instance, or a server that `ws` is attached to, in one line, signals included:
 *
 *     serve(app, { proxies: ['proxy.example.com:8079'], hosts: ['app.example.com'] });
 *
 * It dials each proxy, registers for the hosts, and keeps bridges there. A bridge that is matched with a request
 * is passed to the server like an accepted connection, so everything that works with an http.Server works:
 * frameworks, keep-alive, 'upgrade' for WebSockets. The server may listen on a port as well.
 *
 * Each bridge carries one request at a time, so `connections` is the number of requests at once; others wait in the
 * proxy. Several proxies share that number, if they know places. An upgraded connection is not counted: another bridge
 * replaces it.
 *
 * A proxy `tls://proxy.example.com` is dialled by TLS, at port 8443 unless another is given. The options `ca`,
 * `serverName` and `clientCert` are for such proxies.
 *
 * The protocol is in doc/protocol.md.
 */

const fs = require('node:fs');
const http = require('node:http');
const net = require('node:net');
const tls = require('node:tls');
const { createHash, createHmac, randomBytes } = require('node:crypto');

/** The version of this module, which is that of the proxy it came with. */
const VERSION = '0.2.0';

const DEFAULT_PORT = 8079;
/** In front of the address of a proxy that is dialled by TLS, and its default port. */
const TLS = 'tls://';
const DEFAULT_TLS_PORT = 8443;
/** Where systems keep the issuers that they trust: Debian, Red Hat, SUSE, Alpine. Node brings a list of its own, too. */
const SYSTEM_ISSUERS = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];
/** The default number of bridges at each proxy: a browser sends six requests at once, and there may be several browsers. */
const CONNECTIONS = 16;
/** The default ping interval of a proxy, in ms. */
const PING_INTERVAL = 15_000;
/** Pings that may be missed before the proxy counts as gone: one may be late, two may be bad luck. */
const MISSED_PINGS = 3;
/** How long a connect may take, in ms, over all addresses of a name, and with the handshake of TLS. */
const CONNECT_WITHIN = 10_000;
/** How long a proxy may take to answer a BRIDGE, in ms. */
const ANSWER_WITHIN = 10_000;
/** How long to wait for the text of a refusal, in ms: it is in the same packet as its head. */
const TEXT_WITHIN = 2_000;
/** How long requests in flight may take after close(), in ms. Service managers wait three times that before they kill. */
const GRACE = 30_000;
/** The first pause after a failure, in ms; it doubles up to the longest, which is short: a missing bridge is missing capacity. */
const FIRST_WAIT = 50;
const LONGEST_WAIT = 1_000;
/** The pause after a refusal, or when the proxy cannot be trusted, in ms: an operator has to fix the key or the certificate. */
const REFUSED_WAIT = 30_000;
/** The pause after "too many bridges" without Retry-After, and the longest with it. */
const FULL_WAIT = 5_000;
const LONGEST_FULL_WAIT = 60_000;
/** An unused bridge that is closed so soon after it was accepted, in ms, counts as a failure. */
const SHORT_LIFE = 1_000;
/** When the kernel probes an idle connection, in ms: a bridge that has served a request gets no pings. */
const KEEPALIVE = 15_000;
/** Most bytes of an answer to BRIDGE, head or text. A proxy's own are a few dozen. */
const MAX_ANSWER = 8 * 1024;
/** Most characters of a refusal that are printed. */
const MAX_REASON = 256;

const HTTP = 'HTTP/1.';
/** How a 101 begins. */
const SWITCH = 'HTTP/1.1 101 ';
/** How everything begins that a proxy says between two requests; no request begins like that. */
const SAID = 'HTTP/1.1 10';
/** What the proxy is told beside the registration, while it has room: it takes 100 fields. */
const EXTENSIONS = 'Cloudbridge-Extensions: receipts, probes';
const AGENT = `User-Agent: cloudbridge-node/${VERSION}`;
const MAX_FIELDS = 100;
/** Said of a proxy that refuses keys without their hashes. */
const UNASKED =
  '(it did not ask for a proof of the host keys; the original and old versions do not, and bearerKeys sends them the keys ' +
  'as they are)';
const ACK = 'HTTP/1.1 100 Continue\r\n\r\n';
/**
 * Sent before the application is given a request that must not be sent twice. If the program is killed before, another
 * backend gets it.
 */
const RECEIPT = 'HTTP/1.1 102 Processing\r\nCloudbridge-Receipt: application\r\n\r\n';
const REPEATABLE = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE']);
/** Signals to stop within this time count as one, in ms: process managers and shells often send two. */
const ONE_STOP = 500;

// Of places, in ms. How much longer another proxy must have waited to get the place that a proxy which waits, too, gives up.
const STAYS = 14;
/** How long a place is kept for a proxy that waits: more than the way there and back. */
const PROMISED = 10;
/** How long it is kept at most for one that is far away. */
const LONGEST_PROMISE = 250;
/** How often in a row a request must have come too late for its promise before promises to its proxy last longer. */
const LATE = 3;
/** How many times in a row what a proxy has said is doubted for twice as long as before. */
const DOUBLINGS = 5;
/** How long a place must be free before a proxy that was full is told: one that is taken again at once is not news. */
const WINDOW = 1;
/** How long there must be no place before a proxy is told: most requests do not take longer. */
const FULL_FOR = 2;
/** What matters less is told once in this time at most. */
const PAUSE = 10;
/** How long a place is kept for the request behind a 101: there may be none, if the proxy only wants to know who is there. */
const EXPECTED = 100;

/** The states of a connection. Only in SERVING and ACCEPTED a request could be lost. */
const Stage = Object.freeze({
  DIALLING: 'dialling', // the connect, and the BRIDGE that the proxy has not answered yet
  PARKED: 'parked', // accepted, and not matched yet
  REFUSED: 'refused', // a final status has come, and its text is being read
  ACCEPTED: 'accepted', // acknowledged, and the request is on its way
  SERVING: 'serving', // a request is with the server
  IDLE: 'idle', // it has served, and waits for the next request
  UPGRADED: 'upgraded', // it is a tunnel and belongs to the application
  CLOSED: 'closed',
});

/**
 * Serves requests that come to the proxies with an http.Server.
 *
 * @param {import('node:http').Server | import('node:http').RequestListener | object} app a server, which need not listen;
 *   an application of express or another function of a request and a response; or a fastify instance
 * @param {object} [options]
 * @param {string[]} [options.proxies] each `host:port`, or `host` for port 8079, looked up at each dial; after `tls://` it
 *   is dialled by TLS, and its port is 8443; by default those of BRIDGE_PROXIES
 * @param {string[]} [options.hosts] names, `*.` and a name, or `*`; by default those of BRIDGE_HOSTS, or `*`
 * @param {string[]} [options.keys] host keys; by default those of BRIDGE_KEYS
 * @param {boolean} [options.bearerKeys] send the keys as they are, as the original proxy and old versions need them: everybody
 *   on the way can then use them. By default BRIDGE_BEARER_KEYS (yes or no), or false: they are proven, and not sent
 * @param {string} [options.prefix] only paths below this one; by default `/`
 * @param {string} [options.instance] the name of this process, the same at all proxies and after a restart: clients of a
 *   sticky site come back to it; by default none
 * @param {Record<string, string | string[]>} [options.predicates] only requests of a certain kind: names of `If-*` fields,
 *   such as `If-Method`, with one value or several
 * @param {number} [options.connections] bridges at each proxy, and requests at once; by default 16
 * @param {number} [options.pingInterval] the proxy's ping-interval in ms; by default 15000
 * @param {number} [options.grace] how long requests may take after close(), in ms; by default 30000
 * @param {string} [options.ca] the file of the issuers that the certificate of a `tls://` proxy may be from; by default
 *   BRIDGE_CA, or those that this machine trusts
 * @param {string} [options.serverName] the name that it must be for; by default BRIDGE_SERVER_NAME, or the one that is
 *   dialled
 * @param {[string, string]} [options.clientCert] the files of a certificate and its private key, for proxies that
 *   ask; by default those of BRIDGE_CLIENT_CERT, separated by a comma
 * @param {(line: string) => void} [options.log] for messages to the operator; by default console.error
 * @returns {Bridges} whose close() deregisters without losing a request
 * @throws {TypeError} for options that a proxy would refuse
 */
function bridge(app, options = {}) {
  return new Bridges(serverOf(app), options, isFastify(app) ? app.ready() : null);
}

/**
 * The same until SIGTERM or SIGINT: then it deregisters without losing a request, and ends a fastify instance too. The
 * program ends when nothing else keeps it. Another signal, half a second later or more, ends it at once.
 */
function serve(app, options = {}) {
  const bridges = bridge(app, options);
  let stopping = 0;
  const stop = async (signal) => {
    if (stopping > 0) {
      if (performance.now() - stopping < ONE_STOP) return;
      for (const name of ['SIGTERM', 'SIGINT']) process.removeListener(name, stop);
      process.kill(process.pid, signal);
      return;
    }
    stopping = performance.now();
    await bridges.close();
    if (isFastify(app)) await app.close();
    else serverOf(app).close();
    for (const name of ['SIGTERM', 'SIGINT']) process.removeListener(name, stop);
  };
  for (const name of ['SIGTERM', 'SIGINT']) process.on(name, stop);
  return bridges;
}

/** A fastify instance begins to serve when it is ready, and has its server inside. */
function isFastify(app) {
  return typeof app === 'object' && app !== null && typeof app.ready === 'function' && app.server instanceof net.Server;
}

const servers = new WeakMap();

/** The http.Server of an application, which is made only once. */
function serverOf(app) {
  if (app instanceof net.Server) return app;
  if (isFastify(app)) return app.server;
  if (typeof app !== 'function') throw new TypeError('cloudbridge: the first argument is no server and no application');
  if (!servers.has(app)) servers.set(app, http.createServer(app));
  return servers.get(app);
}

class Bridges {
  #groups;
  #bySocket = new WeakMap();
  #unfollow;
  #closed = null;
  #grace;

  /** Dials when `ready` is fulfilled. */
  constructor(server, options, ready = null) {
    const { proxies, connections = CONNECTIONS, pingInterval = PING_INTERVAL, grace = GRACE } = options;
    const list = listed(proxies, 'BRIDGE_PROXIES');
    if (!Array.isArray(list) || list.length === 0) throw new TypeError('cloudbridge: no proxies are given');
    if (!Number.isInteger(connections) || connections < 1) throw new TypeError('cloudbridge: connections is not a number from 1');
    this.#grace = grace;
    const places = list.length > 1 ? new Places(connections) : null;
    const offer = new Offer(options, places !== null);
    const trust = trustOf(list, options);
    const silence = pingInterval * MISSED_PINGS;
    const setup = { offer, trust, connections, places, silence, log: options.log ?? console.error };
    this.#groups = list.map((proxy) => new Group(proxy, setup, (bridge) => this.#give(server, bridge)));
    const began = (request, response) => this.#began(request, response);
    const upgraded = (request) => this.#upgraded(request);
    this.#unfollow = [
      follow(server, 'request', began),
      follow(server, 'checkContinue', began),
      follow(server, 'checkExpectation', began),
      follow(server, 'upgrade', upgraded),
    ];
    if (places !== null) this.#unfollow.push(gate(server, (given, go) => this.#admits(given, go)));
    const begin = () => this.#groups.forEach((group) => group.tend());
    if (ready === null) begin();
    else Promise.resolve(ready).then(begin);
  }

  /**
   * Deregisters from all proxies. Requests in flight are finished, and so are those that still come over a bridge
   * before the proxy has closed it. Upgraded connections are left to the application.
   *
   * @returns {Promise<void>} fulfilled when every bridge is closed, after `grace` at the latest
   */
  close() {
    this.#closed ??= this.#leave();
    return this.#closed;
  }

  async #leave() {
    await Promise.all(this.#groups.map((group) => group.leave(this.#grace)));
    for (const stop of this.#unfollow) stop();
  }

  /** Passes a matched bridge to the server, as if the server had accepted it. */
  #give(server, bridge) {
    this.#bySocket.set(bridge.socket, bridge);
    server.emit('connection', bridge.socket);
    bridge.hearBetween();
  }

  /** Whether there is a place for a request that has come. If not, `go` may begin it later. */
  #admits([request, response], go) {
    const bridge = this.#bySocket.get(request.socket);
    return bridge === undefined || bridge.admits(request, response, go);
  }

  #began(request, response) {
    const bridge = this.#bySocket.get(request.socket);
    // The server may also listen on a port.
    if (bridge === undefined) return;
    bridge.stage = Stage.SERVING;
    bridge.response = response;
    bridge.request = request;
    bridge.receipt(request);
    dropOwnFields(response);
    if (this.#closed !== null) bridge.finishLast();
    response.once('close', () => bridge.answered());
  }

  #upgraded(request) {
    const bridge = this.#bySocket.get(request.socket);
    bridge?.receipt(request);
    bridge?.upgraded();
  }
}

/** The fields by which a backend itself speaks to the proxy. An application must not set them. */
const OWN_FIELD = /^cloudbridge-/i;

/** Leaves those fields out of a response, however the application sets them. */
function dropOwnFields(response) {
  const isOther = (name) => !OWN_FIELD.test(name);
  // Node calls this too, when the application only writes a body.
  const writeHead = response.writeHead;
  response.writeHead = function (...given) {
    for (const name of this.getHeaderNames()) if (!isOther(name)) this.removeHeader(name);
    const last = given.length - 1;
    const fields = given[last];
    if (Array.isArray(fields)) {
      // Pairs, or names and values in turn.
      given[last] = fields.filter((field, at) => isOther(String(Array.isArray(field) ? field[0] : fields[at - (at % 2)])));
    } else if (fields !== null && typeof fields === 'object') {
      given[last] = Object.fromEntries(Object.entries(fields).filter(([name]) => isOther(name)));
    }
    return writeHead.apply(this, given);
  };
}

/**
 * Calls `listener` before all others of this event, but only while there are others, because listening for some events
 * of an http.Server changes its behaviour. Returns a function that stops it.
 */
function follow(server, event, listener) {
  const follows = () => server.listeners(event).includes(listener);
  const added = (name, other) => {
    if (name === event && other !== listener && !follows()) server.prependListener(event, listener);
  };
  const removed = (name) => {
    if (name === event && server.listenerCount(event) === 1 && follows()) server.removeListener(event, listener);
  };
  server.on('newListener', added);
  server.on('removeListener', removed);
  if (server.listenerCount(event) > 0) server.prependListener(event, listener);
  return () => {
    server.removeListener('newListener', added);
    server.removeListener('removeListener', removed);
    server.removeListener(event, listener);
  };
}

/** The events by which a server gives a request to the application. */
const ARRIVALS = new Set(['request', 'checkContinue', 'checkExpectation', 'upgrade']);

/**
 * Asks `admits` before any listener gets a request. It is told what the listeners get, and how to begin it later. Returns a
 * function that stops that.
 */
function gate(server, admits) {
  let open = false;
  const emit = server.emit;
  server.emit = function (event, ...given) {
    const go = () => emit.call(this, event, ...given);
    return open || !ARRIVALS.has(event) || admits(given, go) ? go() : true;
  };
  return () => (open = true);
}

/** Takes the proxy's own field out of a request. Returns whether the proxy still holds the request, so that it can be given back. */
function isHeld(request) {
  const name = 'cloudbridge-held';
  const value = request.headers[name];
  if (value === undefined) return true;
  const { rawHeaders } = request;
  for (let at = rawHeaders.length - 2; at >= 0; at -= 2) {
    if (rawHeaders[at].toLowerCase() === name) rawHeaders.splice(at, 2);
  }
  delete request.headers[name];
  return value !== 'no';
}

/** Names that are given, alone or in a list, or those of a variable of the environment. */
function listed(values, name) {
  const list = values ?? (process.env[name] ?? '').split(',').map((value) => value.trim()).filter(Boolean);
  return typeof list === 'string' ? [list] : [...list];
}

/** What is given, or what the environment says. */
function bearerKeysAllowed(given) {
  const value = given ?? process.env.BRIDGE_BEARER_KEYS ?? '';
  if (typeof value === 'boolean') return value;
  if (!['', 'yes', 'no'].includes(value)) throw new TypeError('cloudbridge: BRIDGE_BEARER_KEYS is yes or no');
  return value === 'yes';
}

/** A Host-Key line with a hash: what is before it, the hash, and what is behind it. */
const WITH_HASH = /^(Host-Key: (?:v\d+:)?)([0-9A-Fa-f]+)(:.*)$/;

/** One that proves nothing, but names the backend in statistics. */
const WITHOUT_HASH = /^Host-Key: :/;

/** The registration. It contains the keys, which are never shown. */
class Offer {
  #lines;
  #about;
  #proves;

  /** `several`: there is more than one proxy, so each is told of places. */
  constructor({ hosts, keys, bearerKeys, prefix = '/', instance, predicates = {} }, several) {
    const names = listed(hosts, 'BRIDGE_HOSTS');
    if (names.length === 0) names.push('*');
    // No part may contain a line end.
    for (const host of names) {
      if (!/^[!-~]+$/.test(host)) throw new TypeError(`cloudbridge: bad host ${JSON.stringify(host)}`);
    }
    if (!/^\/[!-~]*$/.test(prefix)) throw new TypeError(`cloudbridge: bad prefix ${JSON.stringify(prefix)}`);
    const demands = Object.entries(predicates).flatMap(([name, values]) => [values].flat().map((value) => `${name}: ${value}`));
    for (const line of demands) {
      if (!/^If-[a-z-]+: [ -~]+$/i.test(line)) throw new TypeError(`cloudbridge: bad predicate ${JSON.stringify(line)}`);
    }
    if (instance !== undefined && !/^[!-~]{1,128}$/.test(instance)) {
      throw new TypeError(`cloudbridge: bad instance ${JSON.stringify(instance)}`);
    }
    const more = [...demands, ...(instance === undefined ? [] : [`Cloudbridge-Instance: ${instance}`])];
    const proofs = listed(keys, 'BRIDGE_KEYS');
    if (!proofs.every((key) => /^[!-~]+$/.test(key))) throw new TypeError('cloudbridge: bad host key');
    this.#lines = [
      `BRIDGE ${prefix} HTTP/1.1`,
      ...names.map((host) => `Host: ${host}`),
      ...proofs.map((key) => `Host-Key: ${key}`),
      ...more,
    ];
    const secret = this.#lines.filter((line) => line.startsWith('Host-Key: ') && !WITHOUT_HASH.test(line));
    this.#proves = !bearerKeysAllowed(bearerKeys) && secret.length > 0;
    // What is no key might be one with a slip of the pen, and must not be sent.
    if (this.#proves && !secret.every((line) => WITH_HASH.test(line))) throw new TypeError('cloudbridge: bad host key');
    // The first line, and one or two more fields.
    const room = MAX_FIELDS - names.length - proofs.length - more.length - (this.#proves ? 2 : 1);
    if (this.#proves && room < 0) throw new TypeError('cloudbridge: too many hosts, keys and predicates');
    const about = [several ? `${EXTENSIONS}, places` : EXTENSIONS, AGENT];
    this.#about = about.slice(0, Math.max(0, room));
  }

  /** The registration with one more field, for one connection. */
  register(field) {
    return new Registration([...this.#lines, field, ...this.#about], this.#proves);
  }

  /** The BRIDGE request with one more field, for one connection. */
  with(field) {
    return new Registration([...this.#lines, field], this.#proves);
  }
}

/**
 * A BRIDGE request on one connection. Keys are not sent but proven (doc/protocol.md, "Proof of keys"): the first request
 * names them without their hashes, and when the proxy has answered with a nonce, the second has the proofs.
 */
class Registration {
  #lines;
  #own;
  #text;

  constructor(lines, proves) {
    this.#lines = lines;
    this.#own = proves ? randomBytes(16).toString('hex') : null;
    this.#text = this.#with(() => 'proof');
  }

  /** What is sent first. */
  get text() {
    return this.#text;
  }

  /** Whether the proxy is asked for a nonce that has not come yet. */
  get asks() {
    return this.#own !== null;
  }

  /** What is sent after the proxy's nonce. */
  prove(nonce) {
    const digest = createHash('sha256').update(this.#text).digest('hex');
    // The empty line is for what could tie the proof to its connection; nothing does.
    const signed = `cloudbridge-proof-1\n${nonce}\n\n${digest}\n`;
    const proof = (hash) => createHmac('sha256', hash.toLowerCase()).update(signed).digest('hex');
    const text = this.#with((hash) => `proof-${proof(hash)}`);
    this.#own = null;
    return text;
  }

  #with(put) {
    if (this.#own === null) return `${this.#lines.join('\r\n')}\r\n\r\n`;
    const shown = (line) => line.replace(WITH_HASH, (_, before, hash, behind) => before + put(hash) + behind);
    return [...this.#lines.map(shown), `Cloudbridge-Nonce: ${this.#own}`, '', ''].join('\r\n');
  }
}

/** The nonce in an answer to a registration, if it is one that asks for proofs. */
function nonceOf(status, field) {
  const nonce = field('cloudbridge-nonce');
  return status === 401 && /^[0-9a-f]{32}$/.test(nonce) && field('content-length') === '0' ? nonce : null;
}

/** The field of a head by its name in lower case. */
function fieldOf(lines) {
  return (name) => {
    const line = lines.find((one) => one.toLowerCase().startsWith(`${name}:`));
    return line === undefined ? '' : line.slice(name.length + 1).trim();
  };
}

/** Who may be a `tls://` proxy, and who we are. */
class Trust {
  #ca;
  #serverName;
  #clientCert;
  #context = null;
  #stale = false;

  constructor({ ca, serverName, clientCert }) {
    const isPath = (path) => typeof path === 'string' && path !== '';
    if (ca !== undefined && !isPath(ca)) throw new TypeError('cloudbridge: ca is not the name of a file');
    if (serverName !== undefined && !(typeof serverName === 'string' && /^[0-9A-Za-z_.:-]+$/.test(serverName))) {
      throw new TypeError(`cloudbridge: bad serverName ${JSON.stringify(serverName)}`);
    }
    if (clientCert !== undefined && !(Array.isArray(clientCert) && clientCert.length === 2 && clientCert.every(isPath))) {
      throw new TypeError('cloudbridge: clientCert is not the names of two files, [certificate, key]');
    }
    this.#ca = ca;
    this.#serverName = serverName;
    this.#clientCert = clientCert;
    try {
      this.#context = this.#read();
    } catch (error) {
      throw new TypeError(`cloudbridge: ${error.message}`);
    }
  }

  /** @throws Error when a file cannot be read or used */
  #read() {
    const of = (path, use) => {
      try {
        return use(fs.readFileSync(path));
      } catch (error) {
        throw new Error(`cannot use ${path}: ${error.message}`);
      }
    };
    const settings = { minVersion: 'TLSv1.2', allowPartialTrustChain: true };
    if (this.#ca !== undefined) {
      settings.ca = of(this.#ca, (text) => {
        if (!text.includes('-----BEGIN ')) throw new Error('it holds no certificate');
        tls.createSecureContext({ ca: text });
        return text;
      });
    } else {
      const file = [process.env.SSL_CERT_FILE, ...SYSTEM_ISSUERS].find((path) => path && fs.existsSync(path));
      if (file !== undefined) settings.ca = of(file, (text) => text);
    }
    if (this.#clientCert !== undefined) {
      const [certificate, key] = this.#clientCert;
      settings.cert = of(certificate, (text) => text);
      settings.key = of(key, (text) => text);
      of(key, () => tls.createSecureContext({ cert: settings.cert, key: settings.key }));
    }
    return tls.createSecureContext(settings);
  }

  /** The proxy could not be trusted, or did not trust us: the files are read again for the next attempt. */
  forget() {
    this.#stale = true;
  }

  #current() {
    if (this.#stale) {
      this.#stale = false;
      try {
        this.#context = this.#read();
      } catch {
        // What was read before is used.
      }
    }
    return this.#context;
  }

  /** The name that the certificate of the proxy at `host` must be for. */
  name(host) {
    return this.#serverName ?? host;
  }

  /** A TLS connection to `address`, whose certificate must be that of the proxy at `host`. */
  connect(address, host) {
    const name = this.name(host);
    return tls.connect({
      ...address,
      secureContext: this.#current(),
      servername: net.isIP(name) ? '' : name,
      checkServerIdentity: (_, certificate) => tls.checkServerIdentity(name, certificate),
      ALPNProtocols: ['http/1.1'],
    });
  }
}

/** The Trust of these proxies; null if none is dialled by TLS. */
function trustOf(proxies, options) {
  const isEncrypted = (proxy) => typeof proxy === 'string' && proxy.startsWith(TLS);
  if (proxies.some(isEncrypted)) {
    const { BRIDGE_CA, BRIDGE_SERVER_NAME, BRIDGE_CLIENT_CERT } = process.env;
    return new Trust({
      ca: options.ca ?? (BRIDGE_CA || undefined),
      serverName: options.serverName ?? (BRIDGE_SERVER_NAME || undefined),
      clientCert: options.clientCert ?? (BRIDGE_CLIENT_CERT ? BRIDGE_CLIENT_CERT.split(',') : undefined),
    });
  }
  const given = ['ca', 'serverName', 'clientCert'].find((name) => options[name] !== undefined);
  if (given !== undefined) throw new TypeError(`cloudbridge: ${given} is given, but no proxy begins with ${TLS}`);
  return null;
}

/** What is wrong with certificates, by OpenSSL's names. */
const DISTRUST = new Map([
  ['CERT_HAS_EXPIRED', "its certificate has expired, or this machine's clock is wrong"],
  ['CERT_NOT_YET_VALID', "its certificate is not valid yet, or this machine's clock is wrong"],
  ...[
    'UNABLE_TO_GET_ISSUER_CERT',
    'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
    'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
    'SELF_SIGNED_CERT_IN_CHAIN',
    'DEPTH_ZERO_SELF_SIGNED_CERT',
    'CERT_UNTRUSTED',
  ].map((code) => [code, 'its certificate is from an issuer that is not trusted here']),
]);
/** Other errors of TLS: the peer speaks none, or does not accept us. */
const TLS_ERROR = /^(ERR_SSL_|ERR_TLS_CERT|CERT_|INVALID_|EPROTO$)/;

/** Why it would not help to dial again at once; null if it may. */
function distrust(error, name) {
  const { code = '', cert } = error;
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') {
    const names = (cert?.subjectaltname ?? '').replace(/(DNS|IP Address):/g, '');
    return `its certificate is for ${names || 'no name'}, not for ${name}`;
  }
  if (DISTRUST.has(code)) return DISTRUST.get(code);
  if (!TLS_ERROR.test(code)) return null;
  return error.reason ?? code.toLowerCase().replace(/^err_ssl_/, '').replaceAll('_', ' ');
}

/**
 * The places of a program with several proxies: it serves so many requests at once, whichever proxies they come from
 * (doc/protocol.md, "Places"). A place that comes free goes to the proxy that has waited longest.
 */
class Places {
  #count;
  #shares = [];
  /** Requests that wait here, because their proxies cannot take them back: first come, first served. */
  #queue = [];
  #timer = null;
  #wakesAt = Infinity;

  constructor(count) {
    this.#count = count;
  }

  /** The share of a proxy where we have this token. */
  share(token) {
    const share = new Share(this, token);
    this.#shares.push(share);
    return share;
  }

  /** Places that are free and not promised, except to this share. */
  freeFor(share) {
    const taken = this.#shares.reduce((sum, one) => sum + one.busy + (one === share ? 0 : one.promised), 0);
    return Math.max(0, this.#count - taken);
  }

  /** Calls `begin` when `share` has got a place for this bridge. */
  enqueue(share, bridge, begin) {
    this.#queue.push({ share, bridge, begin });
  }

  /** The bridge is closed: its request waits no more. */
  dequeue(bridge) {
    this.#queue = this.#queue.filter((one) => one.bridge !== bridge);
  }

  /** Gives away what has come free, `last` by this share. */
  pass(last = null) {
    while (this.#queue.length > 0 && this.#shares.reduce((sum, one) => sum + one.busy, 0) < this.#count) {
      const { share, begin } = this.#queue.shift();
      share.busy += 1;
      begin();
    }
    if (this.freeFor(null) > 0) this.#promise(last);
    this.tell();
  }

  /** Keeps a place for the proxy that has waited longest, or for `last`, if that waits, too, and not much less long. */
  #promise(last) {
    const now = performance.now();
    const mayUse = (one) => one.waitsSince !== null && one.doubtedUntil <= now && one.busy + one.tunnels + one.promised < one.bridges;
    const waiting = this.#shares.filter(mayUse);
    if (waiting.length === 0) return;
    let next = waiting.reduce((first, one) => (one.waitsSince < first.waitsSince ? one : first));
    if (waiting.includes(last) && last.waitsSince - next.waitsSince <= STAYS) next = last;
    next.promise(now);
  }

  /** Tells the proxies what is due, and sees to it that the rest is told in time. */
  tell() {
    const now = performance.now();
    const lapsed = this.#shares.filter((share) => share.promised > 0 && share.promisedUntil <= now);
    // The place is for all then.
    lapsed.forEach((share) => share.lapse(now));
    // Nobody else would wake a request that waits here.
    if (lapsed.length > 0 && this.#queue.length > 0) return this.pass();
    let next = Infinity;
    for (const share of this.#shares) {
      if (share.promised > 0) next = Math.min(next, share.promisedUntil);
      const due = share.due(now);
      if (due > now) next = Math.min(next, due);
      else share.tell(now);
    }
    if (next >= this.#wakesAt) return;
    clearTimeout(this.#timer);
    this.#wakesAt = next;
    this.#timer = setTimeout(() => {
      this.#wakesAt = Infinity;
      this.tell();
    }, Math.ceil(next - now));
    this.#timer.unref();
  }
}

/** What one proxy has of the places, and what it has been told. */
class Share {
  /** Requests that have a place. Tunnels have none, but the proxy counts them. */
  busy = 0;
  tunnels = 0;
  /** All bridges that the proxy has accepted, tunnels included. */
  bridges = 0;
  /** Since when its oldest request waits, if that is known. */
  waitsSince = null;
  /** Places that are kept for it. */
  promised = 0;
  promisedUntil = 0;
  /** Since when it is believed again that it waits, after it has not used a promise, and how often in a row it has not. */
  doubtedUntil = 0;
  #lapses = 0;
  /** When the last promise was made, since when its request had waited by then, and whether it came too late for that. */
  #promisedAt = 0;
  #waitedSince = 0;
  #hasLapsed = false;
  /** How often in a row it came too late, and after what time. */
  #late = 0;
  #response = 0;
  #places;
  #token;
  /** Bridges without a request, over which it can be told. */
  #idle = new Set();
  /** How many bridges it uses at most, as it was last told, and when and over which bridge. */
  #told = Infinity;
  #toldAt = -Infinity;
  #toldOver = null;
  /** How what is to be told differs from that, and since when. */
  #news = '';
  #newsSince = 0;
  /** The numbers of our messages and of its own. */
  #sent = 0;
  #heard = -1;

  constructor(places, token) {
    this.#places = places;
    this.#token = token;
  }

  /** The proxy has accepted a bridge, and knows places. */
  join(bridge) {
    this.bridges += 1;
    this.#idle.add(bridge);
    this.#places.tell();
  }

  /** A bridge that knew places is closed, and has no place any more. */
  leave(bridge, isTunnel) {
    this.bridges -= 1;
    if (isTunnel) this.tunnels -= 1;
    this.#idle.delete(bridge);
    // Perhaps it has not arrived.
    if (this.#toldOver === bridge) this.#toldOver = null;
    if (this.bridges === 0) this.forgo();
    this.#places.pass();
  }

  /** Whether a request, or a 101, gets a place. Old proxies could not take it back: it gets one in any case. */
  take(bridge) {
    if (bridge.knowsPlaces && this.#places.freeFor(this) === 0) {
      this.#noteLate();
      return false;
    }
    this.busy += 1;
    if (this.promised > 0) {
      this.promised -= 1;
      [this.#late, this.#lapses, this.#hasLapsed] = [0, 0, false];
    }
    this.#idle.delete(bridge);
    this.#places.tell();
    return true;
  }

  /** The request waits here. `begin` is called when it has a place. */
  wait(bridge, begin) {
    this.occupied(bridge);
    this.#places.enqueue(this, bridge, begin);
  }

  /** The request waits no more. */
  stopWaiting(bridge) {
    this.#places.dequeue(bridge);
  }

  /** A request with a place has ended. */
  free() {
    this.busy -= 1;
    this.#places.pass(this);
  }

  /** A request with a place has become a tunnel. */
  freeForTunnel(bridge) {
    if (bridge.knowsPlaces) this.tunnels += 1;
    this.free();
  }

  /** A bridge has no request. */
  idle(bridge) {
    if (!bridge.knowsPlaces) return;
    this.#idle.add(bridge);
    this.#places.tell();
  }

  /** A bridge has a request, which has no place. */
  occupied(bridge) {
    this.#idle.delete(bridge);
  }

  /** What the proxy says of its queue. */
  hear(value) {
    const parts = /^(none|\d{1,9}); at=(\d{1,19})$/.exec(value);
    if (parts === null || Number(parts[2]) <= this.#heard) return;
    this.#heard = Number(parts[2]);
    [this.doubtedUntil, this.#lapses] = [0, 0];
    if (parts[1] === 'none') this.forgo();
    else this.waitsSince = performance.now() - Number(parts[1]);
    if (this.promised === 0) this.#places.pass();
  }

  /** A place is kept for it. */
  promise(now) {
    this.promised += 1;
    this.promisedUntil = now + Math.min(Math.max(PROMISED, this.#response + WINDOW), LONGEST_PROMISE);
    [this.#promisedAt, this.#waitedSince] = [now, this.waitsSince];
    // Until it says how long its next one has waited.
    this.waitsSince = now;
  }

  /** It has not used the place in time. It may not wait any more, but its `none` may be lost; or it is far away. */
  lapse(now) {
    this.promised = 0;
    this.waitsSince = this.#waitedSince;
    this.doubtedUntil = now + PAUSE * 2 ** Math.min(this.#lapses, DOUBLINGS);
    this.#lapses += 1;
    this.#hasLapsed = true;
  }

  /** A request has come that has no place: perhaps the one that had a promise. If that happens again and again, the next lasts as
      long. */
  #noteLate() {
    if (!this.#hasLapsed) return;
    this.#hasLapsed = false;
    this.#late += 1;
    if (this.#late < LATE) return;
    this.#response = performance.now() - this.#promisedAt;
    [this.#lapses, this.doubtedUntil] = [0, 0];
  }

  /** It does not wait any more. */
  forgo() {
    this.waitsSince = null;
    this.promised = 0;
    this.#hasLapsed = false;
  }

  get #limit() {
    return this.tunnels + this.busy + this.#places.freeFor(this);
  }

  /** When it is to be told its limit; Infinity if there is nothing to tell. */
  due(now) {
    const told = Math.min(this.#told, this.bridges);
    const limit = Math.min(this.#limit, this.bridges);
    const busy = this.tunnels + this.busy;
    let news = '';
    if (this.#sent > 0 && this.#toldOver === null) news = 'lost';
    else if (limit > told) news = told <= busy ? 'no longer full' : 'more';
    else if (limit < told) news = limit === busy ? 'full' : 'less';
    if (news !== this.#news) this.#newsSince = now;
    this.#news = news;
    if (news === '') return Infinity;
    if (news === 'lost' || (limit > told && this.promised > 0)) return now;
    if (news === 'no longer full') return this.#newsSince + WINDOW;
    if (news === 'full') return this.#newsSince + FULL_FOR;
    return Math.max(this.#newsSince + FULL_FOR, this.#toldAt + PAUSE);
  }

  /** Tells it its limit now. If no bridge is idle, it is told when one is. */
  tell(now) {
    const [bridge] = this.#idle;
    if (bridge !== undefined) bridge.socket.write(`HTTP/1.1 102 Processing\r\n${this.#field(bridge, now)}\r\n\r\n`);
  }

  #field(bridge, now) {
    this.#told = this.#limit;
    this.#toldAt = now;
    this.#toldOver = bridge;
    this.#news = '';
    this.#sent += 1;
    return `Cloudbridge-Places: ${this.#told}; at=${this.#sent}; by=${this.#token}`;
  }

  /** The fields that give a request of this bridge back. */
  giveBack(bridge) {
    return ['Cloudbridge-Undelivered: places', this.#field(bridge, performance.now()), 'Content-Length: 0'];
  }
}

/** A response by which a request is given back. */
function givenBack(...fields) {
  return ['HTTP/1.1 503 Service Unavailable', ...fields.flat(), '', ''].join('\r\n');
}

/** The bridges at one proxy, and when it may be dialled. */
class Group {
  #offer;
  #setup;
  #token = randomBytes(16).toString('hex');
  #place;
  #trust;
  #name;
  #timer = null;
  /** Without upgraded connections. */
  #bridges = new Set();
  /** How many of them the proxy has not accepted yet. */
  #trying = 0;
  /** Whether the proxy has accepted a bridge since the last failure. If not, it is tried with one bridge. */
  #proven = false;
  #failures = 0;
  #notBefore = 0;
  /** The last message: it is not repeated. */
  #said = '';
  #leaving = false;
  #empty = null;

  constructor(proxy, setup, give) {
    this.#place = place(proxy);
    this.#trust = proxy.startsWith(TLS) ? setup.trust : null;
    this.#name = proxy;
    this.#setup = setup;
    this.#offer = setup.offer;
    this.give = give;
    /** What it has of the places; null if there is only one proxy. */
    this.share = setup.places === null ? null : setup.places.share(this.#token);
  }

  /** A connection to the proxy, or to one address of it. `ready` is called when it can be written to. */
  connect(ready, address = this.#place) {
    // Half-open, as the sockets that an http.Server accepts are.
    const where = { ...address, allowHalfOpen: true };
    if (this.#trust === null) return net.connect(where, ready);
    return this.#trust.connect(where, this.#place.host).once('secureConnect', ready);
  }

  /** What is wrong with the proxy, if it would not help to dial again at once. */
  distrust(error) {
    return this.#trust === null ? null : distrust(error, this.#trust.name(this.#place.host));
  }

  get silence() {
    return this.#setup.silence;
  }

  get registration() {
    return this.#offer.register(`Cloudbridge-Backend: ${this.#token}`);
  }

  /** Dials missing bridges, as far as that is allowed now. */
  tend() {
    if (this.#leaving) return;
    const missing = this.#setup.connections - this.#bridges.size;
    const wait = this.#notBefore - performance.now();
    if (missing > 0 && wait > 0) {
      clearTimeout(this.#timer);
      this.#timer = setTimeout(() => this.tend(), Math.ceil(wait));
      return;
    }
    const count = this.#proven ? missing : Math.min(missing, 1 - this.#trying);
    for (let dialled = 0; dialled < count; dialled += 1) {
      this.#trying += 1;
      this.#bridges.add(new Bridge(this));
    }
  }

  accepted() {
    this.#trying -= 1;
    this.#failures = 0;
    this.#proven = true;
    // A proxy with a limit refuses the excess bridges again and again.
    if (!this.#said.startsWith('503')) this.#said = '';
    this.tend();
  }

  /** The proxy could not be reached, or closed the bridge before it accepted. */
  failed(why) {
    const now = performance.now();
    if (now >= this.#notBefore) {
      this.#failures += 1;
      const wait = Math.min(FIRST_WAIT * 2 ** Math.min(this.#failures - 1, 16), LONGEST_WAIT);
      this.#pause(wait * (1 - Math.random() / 2));
    }
    this.#say('unreachable', `no bridge to ${this.#name}: ${why}; trying again`);
  }

  refused(status, reason, retryAfter) {
    let wait = REFUSED_WAIT;
    if (status === 503) wait = Math.min((retryAfter || FULL_WAIT / 1000) * 1000, LONGEST_FULL_WAIT);
    this.#pause(wait + Math.random() * FIRST_WAIT);
    this.#say(`${status}`, `${this.#name} refused the bridge: ${status} ${reason}; asking again every ${wait / 1000} s`);
  }

  /** The proxy cannot be trusted, or does not trust us, or speaks no TLS. */
  distrusted(why) {
    this.#trust.forget();
    this.#pause(REFUSED_WAIT + Math.random() * FIRST_WAIT);
    this.#say(why, `no bridge to ${this.#name}: ${why}; it is tried again every ${REFUSED_WAIT / 1000} s`);
  }

  /** An accepted bridge was closed before it was used, perhaps with all others. */
  lost() {
    this.#pause(Math.random() * FIRST_WAIT);
  }

  #pause(wait) {
    this.#proven = false;
    this.#notBefore = Math.max(this.#notBefore, performance.now() + wait);
  }

  #say(what, line) {
    if (this.#said === what || this.#leaving) return;
    this.#said = what;
    this.#setup.log(`cloudbridge: ${line}`);
  }

  /** A bridge is no longer counted: it is closed, or a tunnel. */
  forget(bridge, hadBeenAccepted) {
    if (!this.#bridges.delete(bridge)) return;
    if (!hadBeenAccepted) this.#trying -= 1;
    if (this.#leaving && this.#bridges.size === 0) this.#empty();
    this.tend();
  }

  /** Closes all bridges without losing a request, and the rest after `grace` ms. */
  async leave(grace) {
    this.#leaving = true;
    clearTimeout(this.#timer);
    if (this.#bridges.size === 0) return;
    const empty = new Promise((fulfil) => (this.#empty = fulfil));
    const end = setTimeout(() => {
      this.#setup.log(`cloudbridge: grace period over: ${this.#bridges.size} bridges to ${this.#name} are cut`);
      for (const bridge of this.#bridges) bridge.cut();
    }, grace);
    const addresses = new Map();
    for (const bridge of [...this.#bridges]) {
      bridge.finishLast();
      if (bridge.leavesAt === null) bridge.retire();
      else addresses.set(`${bridge.leavesAt.host} ${bridge.leavesAt.port}`, bridge.leavesAt);
    }
    await Promise.all([...addresses].map(([name, address]) => this.#leaveAt(name, address)));
    await empty;
    clearTimeout(end);
  }

  /** Asks the proxy at one address to close our bridges; if it does not, we close them. */
  async #leaveAt(name, address) {
    const request = this.#offer.with(`Cloudbridge-Leave: ${this.#token}`);
    if (await asked((ready) => this.connect(ready, address), request)) return;
    for (const bridge of [...this.#bridges]) {
      if (bridge.leavesAt !== null && `${bridge.leavesAt.host} ${bridge.leavesAt.port}` === name) bridge.retire();
    }
  }
}

/** Whether the proxy that is dialled so answers a deregistration with 200. */
function asked(connect, request) {
  return new Promise((fulfil) => {
    const socket = connect(() => socket.write(request.text));
    let text = '';
    const over = (answer) => {
      socket.destroy();
      fulfil(answer);
    };
    socket.setTimeout(ANSWER_WITHIN, () => over(false));
    socket.on('error', () => over(false));
    socket.on('close', () => over(false));
    socket.on('data', (bytes) => {
      text += bytes.toString('latin1');
      const end = text.indexOf('\r\n\r\n');
      const nonce = end >= 0 && text.startsWith('HTTP/1.1 401 ') ? nonceOf(401, fieldOf(text.slice(0, end).split('\r\n'))) : null;
      if (nonce !== null && request.asks) {
        text = '';
        socket.write(request.prove(nonce));
      } else if (end >= 0 || text.length > MAX_ANSWER) {
        over(/^HTTP\/1\.[01] 200[ \r]/.test(text));
      }
    });
  });
}

/** One connection to a proxy. */
class Bridge {
  stage = Stage.DIALLING;
  /** The request in flight, or the last one, and the response to it. */
  request = null;
  response = null;
  /** The address of the proxy, if it supports deregistration. */
  leavesAt = null;
  /** Why the proxy cannot be trusted, or does not trust us. */
  distrust = null;
  /** Whether the proxy takes receipts, and whether it knows places. */
  #receipts = false;
  knowsPlaces = false;
  /** Whether its request has a place, which request was asked about, and until when a 101 keeps one. */
  #placed = false;
  #asked = null;
  #expected = null;
  #group;
  #registration;
  #held = Buffer.alloc(0);
  #refusal = null;
  #acceptedAt = 0;
  #retired = false;
  /** Whether bytes of a request have come since the last answer. */
  #begun = false;
  /** Whether a 101 has been given back, so that a plain request may come. */
  #gaveBack = false;

  constructor(group) {
    this.#group = group;
    this.#registration = group.registration;
    const socket = group.connect(() => {
      socket.setTimeout(ANSWER_WITHIN);
      socket.write(this.#registration.text);
    });
    this.socket = socket;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, KEEPALIVE);
    socket.setTimeout(CONNECT_WITHIN);
    // Never removed: an error of a bridge must not end the program.
    socket.on('error', (error) => {
      this.error ??= error.message;
      this.distrust ??= group.distrust(error);
    });
    socket.on('close', () => this.#gone());
    socket.on('data', this.#onData);
    socket.on('end', this.#onEnd);
    socket.on('timeout', this.#onTimeout);
  }

  #onData = (bytes) => {
    this.#held = Buffer.concat([this.#held, bytes]);
    while (this.stage === Stage.DIALLING || this.stage === Stage.PARKED) {
      const end = this.#held.indexOf('\r\n\r\n');
      const begun = this.#held.toString('latin1', 0, HTTP.length);
      if (this.#gaveBack && !HTTP.startsWith(begun)) return this.#transfer();
      if (end < 0 && this.#held.length <= MAX_ANSWER && HTTP.startsWith(begun)) return;
      const head = this.#held.toString('latin1', 0, Math.max(end, 0)).split('\r\n');
      const status = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(head[0]);
      if (status === null) {
        this.error = 'the peer is not a proxy';
        this.socket.destroy();
        return;
      }
      this.#held = this.#held.subarray(end + 4);
      this.#answered(Number(status[1]), status[2] ?? '', head.slice(1));
    }
    if (this.stage === Stage.REFUSED) this.#readText();
  };

  #onEnd = () => {
    this.error ??= 'the proxy closed the connection';
    this.socket.destroy();
  };

  #onTimeout = () => {
    this.error = this.stage === Stage.DIALLING ? 'no answer' : 'the proxy has fallen silent';
    this.socket.destroy();
  };

  /** A head from the proxy, before the request. */
  #answered(status, phrase, lines) {
    const field = fieldOf(lines);
    if (status === 101) return this.#matched();
    if (status < 200) {
      if (this.stage === Stage.DIALLING && status === 100) {
        const extensions = field('cloudbridge-extensions').split(',').map((word) => word.trim());
        this.#receipts = extensions.includes('receipts');
        this.knowsPlaces = this.#group.share !== null && extensions.includes('places');
        if (extensions.includes('leave')) {
          this.leavesAt = { host: this.socket.remoteAddress, port: this.socket.remotePort };
        }
        this.#accepted();
      } else if (this.knowsPlaces && status === 100) {
        this.#group.share.hear(field('cloudbridge-waiting'));
      }
      return undefined;
    }
    const nonce = nonceOf(status, field);
    const { asks } = this.#registration;
    if (nonce !== null && asks && this.stage === Stage.DIALLING) {
      this.socket.write(this.#registration.prove(nonce));
      return undefined;
    }
    this.#refusal = {
      unasked: asks && nonce === null && (status === 400 || status === 401) && this.stage === Stage.DIALLING,
      status,
      phrase,
      again: status === 504 && this.stage === Stage.PARKED,
      length: Number.parseInt(field('content-length'), 10) || 0,
      retryAfter: Number.parseInt(field('retry-after'), 10) || 0,
    };
    this.stage = Stage.REFUSED;
    this.socket.setTimeout(TEXT_WITHIN);
    return undefined;
  }

  #readText() {
    if (this.#held.length >= Math.min(this.#refusal.length, MAX_ANSWER)) this.socket.destroy();
  }

  #accepted() {
    this.stage = Stage.PARKED;
    this.#acceptedAt = performance.now();
    this.socket.setTimeout(this.#group.silence);
    if (this.knowsPlaces) this.#group.share.join(this);
    this.#group.accepted();
  }

  /** A request has been matched: acknowledges it, and hands the connection over. */
  #matched() {
    if (this.stage === Stage.DIALLING) this.#accepted();
    if (!this.#takesPlace()) {
      // Its pings have ended.
      this.socket.setTimeout(0);
      this.#gaveBack = true;
      return;
    }
    this.socket.write(ACK);
    this.#transfer();
  }

  #transfer() {
    const { socket } = this;
    this.stage = Stage.ACCEPTED;
    socket.removeListener('data', this.#onData);
    socket.removeListener('end', this.#onEnd);
    socket.removeListener('timeout', this.#onTimeout);
    socket.setTimeout(0);
    socket.pause();
    if (this.#held.length > 0) socket.unshift(this.#held);
    // After a 101 that was given back.
    this.#begun = this.#held.length > 0;
    this.#held = Buffer.alloc(0);
    this.#group.give(this);
    socket.resume();
  }

  /** Whether there is a place for the request behind a 101. If not, it is given back. */
  #takesPlace() {
    const { share } = this.#group;
    if (share === null || this.#placed) return true;
    if (!share.take(this)) {
      this.socket.write(givenBack(share.giveBack(this)));
      return false;
    }
    this.#placed = true;
    this.#expected = setTimeout(() => {
      this.#freePlace();
      share.idle(this);
    }, EXPECTED);
    return true;
  }

  #freePlace() {
    if (!this.#placed) return;
    this.#placed = false;
    this.#group.share.free();
  }

  /** Whether a request may begin. If not, it is given back, or `go` begins it when there is a place. */
  admits(request, response, go) {
    // An application that has seen its Expect may pass it on as a request.
    if (request === this.#asked) return true;
    this.#asked = request;
    const { share } = this.#group;
    const held = isHeld(request);
    clearTimeout(this.#expected);
    if (this.#placed || share.take(this)) {
      this.#placed = true;
      return true;
    }
    this.stage = Stage.SERVING;
    if (held) {
      this.#giveBack(request, response);
    } else {
      share.wait(this, () => {
        this.#placed = true;
        go();
      });
    }
    return false;
  }

  #giveBack(request, response) {
    const { share } = this.#group;
    share.occupied(this);
    if (response instanceof net.Socket) {
      // An upgrade: the server's parser has released it.
      response.resume();
      response.end(givenBack(share.giveBack(this), 'Connection: close'));
      return;
    }
    this.request = request;
    response.once('close', () => {
      // The server would close it, and the proxy would not know when.
      this.socket.setTimeout(0);
      this.answered();
    });
    // All of it comes, since the proxy holds it.
    request.resume().once('end', () => {
      response.statusCode = 503;
      response.sendDate = false;
      for (const field of share.giveBack(this)) response.setHeader(...field.split(': '));
      response.end();
    });
  }

  /**
   * Hears what the proxy says between two requests: 101s by which it finds out whether the bridge is there, which are
   * acknowledged, and how long its requests wait. The server's parser must not see that. Its bytes are looked at only where
   * a request may begin: in the middle of one, a client could make them up.
   */
  hearBetween() {
    const { socket } = this;
    const push = socket.push;
    let held = Buffer.alloc(0);
    const pass = (chunk, encoding) => {
      this.#begun = true;
      return push.call(socket, chunk, encoding);
    };
    socket.push = (chunk, encoding) => {
      if (chunk === null || this.#begun || !(chunk instanceof Uint8Array)) return pass(chunk, encoding);
      held = Buffer.concat([held, chunk]);
      while (held.length > 0) {
        const begun = held.toString('latin1', 0, SAID.length);
        const end = held.indexOf('\r\n\r\n');
        if (!SAID.startsWith(begun) || (end < 0 ? held.length : end) > MAX_ANSWER) {
          const bytes = held;
          held = Buffer.alloc(0);
          return pass(bytes);
        }
        if (end < 0) return true;
        const head = held.toString('latin1', 0, end);
        held = held.subarray(end + 4);
        this.#said(head);
      }
      return true;
    };
    // With a listener of ours, the server's parser reads from the stream and not from beneath it.
    const none = () => {};
    socket.on('data', none);
    socket.removeListener('data', none);
  }

  #said(head) {
    if (head.startsWith(SWITCH)) {
      if (this.#takesPlace()) this.socket.write(ACK);
    } else if (this.knowsPlaces) {
      this.#group.share.hear(fieldOf(head.split('\r\n'))('cloudbridge-waiting'));
    }
  }

  /** The response has been sent, or the connection is closed. */
  answered() {
    this.response = null;
    // If the request is still coming, the proxy closes the bridge.
    this.#begun = this.request === null || !this.request.complete;
    if (this.stage !== Stage.SERVING) return;
    this.stage = Stage.IDLE;
    this.#freePlace();
    if (this.#retired) this.socket.end();
    else if (!this.#begun) this.#group.share?.idle(this);
  }

  /** The application is about to be given this request. */
  receipt(request) {
    if (this.#receipts && !REPEATABLE.has(request.method)) this.socket.write(RECEIPT);
  }

  upgraded() {
    this.stage = Stage.UPGRADED;
    delete this.socket.push;
    if (this.#placed) {
      this.#placed = false;
      this.#group.share.freeForTunnel(this);
    }
    this.#group.forget(this, true);
  }

  /** Makes the response in flight the last of this bridge, unless its head has been sent. */
  finishLast() {
    if (this.response !== null && !this.response.headersSent) this.response.setHeader('Connection', 'close');
  }

  /** Closes the bridge as soon as no request can be lost. */
  retire() {
    this.#retired = true;
    if (this.stage !== Stage.SERVING && this.stage !== Stage.ACCEPTED) this.socket.destroy();
  }

  cut() {
    this.socket.destroy();
  }

  #gone() {
    const { stage } = this;
    this.stage = Stage.CLOSED;
    const group = this.#group;
    clearTimeout(this.#expected);
    group.share?.stopWaiting(this);
    this.#freePlace();
    if (this.knowsPlaces) group.share.leave(this, stage === Stage.UPGRADED);
    if (stage === Stage.DIALLING && this.distrust) {
      group.distrusted(this.distrust);
    } else if (stage === Stage.DIALLING) {
      group.failed(this.error ?? 'closed');
    } else if (stage === Stage.REFUSED) {
      this.#tellRefusal();
    } else if (stage === Stage.PARKED && performance.now() - this.#acceptedAt < SHORT_LIFE) {
      group.failed(this.error ?? 'closed');
    } else if (stage === Stage.PARKED) {
      group.lost();
    }
    group.forget(this, this.#acceptedAt > 0);
  }

  #tellRefusal() {
    const { status, phrase, again, length, retryAfter, unasked } = this.#refusal;
    if (again) return this.#group.lost();
    if (status === 504) return this.#group.failed('504 at once');
    const text = this.#held.toString('utf8', 0, Math.min(length, this.#held.length)).split('\n')[0].trim();
    const reason = (text || phrase).replace(/[^\x20-\x7e]/g, '?').slice(0, MAX_REASON);
    return this.#group.refused(status, unasked ? `${reason} ${UNASKED}` : reason, retryAfter);
  }
}

/** Host and port of `host:port`, `host`, `[v6]:port`, `[v6]` or a bare IPv6 address, each with or without `tls://`. */
function place(proxy) {
  const bad = () => new TypeError(`cloudbridge: bad proxy ${JSON.stringify(proxy)}`);
  if (typeof proxy !== 'string') throw bad();
  const encrypted = proxy.startsWith(TLS);
  const address = encrypted ? proxy.slice(TLS.length) : proxy;
  if (address.includes('://')) {
    throw new TypeError(`cloudbridge: bad proxy ${JSON.stringify(proxy)}: this is a URL; write only its host and port`);
  }
  const usual = encrypted ? DEFAULT_TLS_PORT : DEFAULT_PORT;
  if (net.isIPv6(address)) return { host: address, port: usual };
  const parts = /^(?:\[([^\]]+)\]|([^:[\]\s/]+))(?::(\d{1,5}))?$/.exec(address);
  if (parts === null) throw bad();
  const port = parts[3] === undefined ? usual : Number(parts[3]);
  if (port < 1 || port > 65535) throw bad();
  return { host: parts[1] ?? parts[2], port };
}

module.exports = { bridge, serve, Bridges };
