import type { RequestListener, Server as HttpServer } from 'node:http';

/** What may be left out has a default. */
export interface Options {
  /**
   * Each `host:port`, or `host` for port 8079, looked up at each dial. After `tls://` it is dialled by TLS, and its port is
   * 8443. By default those of BRIDGE_PROXIES.
   */
  proxies?: string | readonly string[];
  /** Names, `*.` and a name, or `*`. By default those of BRIDGE_HOSTS, or `*`. */
  hosts?: string | readonly string[];
  /** Host keys. By default those of BRIDGE_KEYS. */
  keys?: string | readonly string[];
  /**
   * Sends the keys as they are, as the original proxy and old versions need them: everybody on the way can then use them. By
   * default BRIDGE_BEARER_KEYS (yes or no), or false: they are proven, and not sent.
   */
  bearerKeys?: boolean;
  /** Only paths below this one. By default `/`. */
  prefix?: string;
  /** The name of this process, the same at all proxies and after a restart: clients of a sticky site come back to it. By default none. */
  instance?: string;
  /** Only requests of a certain kind: names of `If-*` fields, such as `If-Method`, with one value or several. */
  predicates?: Readonly<Record<string, string | readonly string[]>>;
  /** Bridges at each proxy, and requests that are served at once: several proxies share them. By default 16. */
  connections?: number;
  /** The proxies' ping-interval, in ms. By default 15000. */
  pingInterval?: number;
  /** How long requests may take after close(), in ms. By default 30000. */
  grace?: number;
  /** The file of the issuers that the certificate of a `tls://` proxy may be from. By default BRIDGE_CA, or those that this machine trusts. */
  ca?: string;
  /** The name that it must be for. By default BRIDGE_SERVER_NAME, or the one that is dialled. */
  serverName?: string;
  /** The files of a certificate and its private key, for `tls://` proxies that ask for one. By default those of BRIDGE_CLIENT_CERT. */
  clientCert?: readonly [certificate: string, key: string];
  /** For messages to the operator. By default console.error. */
  log?: (line: string) => void;
}

/** As much of a fastify instance as is used. */
export interface Fastify {
  readonly server: HttpServer;
  ready(): PromiseLike<unknown>;
  close(): PromiseLike<unknown>;
}

/**
 * What can be served: a server, which need not listen; an application of express, or another function of a request and a
 * response; a fastify instance.
 */
export type Application = HttpServer | RequestListener | Fastify;

/** The bridges of one server. */
export declare class Bridges {
  private constructor();
  /**
   * Deregisters from all proxies without losing a request. Upgraded connections are left to the application.
   *
   * @returns fulfilled when every bridge is closed, after `grace` at the latest
   */
  close(): Promise<void>;
}

/**
 * Serves requests that come to the proxies.
 *
 * @throws TypeError for options that a proxy would refuse
 */
export declare function bridge(app: Application, options?: Options): Bridges;

/**
 * The same until SIGTERM or SIGINT: then it deregisters without losing a request, and the program ends when nothing else
 * keeps it.
 *
 * @throws TypeError for options that a proxy would refuse
 */
export declare function serve(app: Application, options?: Options): Bridges;
