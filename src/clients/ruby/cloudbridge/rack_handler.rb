# frozen_string_literal: true

require 'puma'
require 'puma/server'
require_relative 'listener'
require_relative 'places'

module CloudBridge
  # Serves a Rack application with Puma, and without a port: `rackup -s cloudbridge`, or from a program
  #
  #     CloudBridge::RackHandler.run(app, Proxies: 'proxy.example.com:8079', Hosts: 'app.example.com')
  #
  # At TERM or INT it deregisters; requests in flight and those that still come are served.
  module RackHandler
    # Requests at once, and so bridges at each proxy. More threads rarely make a Ruby program faster.
    CONNECTIONS = 8
    # In seconds. Puma closes a connection on which nothing comes for so long, and a request may be on its way by then. The
    # kernel finds out if the proxy is gone.
    KEEP_ALIVE = 365 * 24 * 3600
    # Signals to stop within this time, in seconds, count as one: process managers and shells often send two.
    ONE_STOP = 0.5
    # What requests must be like, as a field and as an option.
    PREDICATES = %w[If-Method If-Path-Prefix If-Header If-Cookie If-Max-Body If-Client].to_h do |name|
      [name, name.delete('-').to_sym]
    end

    module_function

    # Returns after TERM or INT. Names, hosts and keys default to BRIDGE_PROXIES, BRIDGE_HOSTS and BRIDGE_KEYS. Where rackup
    # would listen, its Host and Port, is not used.
    def run(app, **options)
      grace = Float(options.fetch(:Grace, Server::GRACE))
      connections = Integer(options.fetch(:Connections, CONNECTIONS))
      listeners = servers(options, grace, connections).map { |server| Listener.new(server, connections) }
      puma = server_of(app, connections * listeners.length)
      puma.binder.ios.concat(listeners)
      yield puma if block_given?
      signals = caught
      puma.run
      signals.pop
      late = listeners.map { |listener| Thread.new { listener.leave(grace) } }.map(&:value).count(false)
      warn("cloudbridge: grace period over: bridges at #{late} proxies are cut") if late.positive?
      puma.stop(true)
    end

    # What `rackup -s cloudbridge -O NAME=VALUE` takes.
    def valid_options
      {
        'Proxies=HOST[:8079],...' => 'proxies to dial, tls://HOST[:8443] by TLS (default BRIDGE_PROXIES)',
        'Ca=FILE' => 'the issuers of the certificates of tls:// proxies (default BRIDGE_CA, or those of the system)',
        'ServerName=NAME' => 'the name that they must be for (default BRIDGE_SERVER_NAME, or the one that is dialled)',
        'ClientCert=CERT,KEY' => 'a certificate and its private key, for those that ask (default BRIDGE_CLIENT_CERT)',
        'Hosts=HOST,...' => 'names to serve (default BRIDGE_HOSTS, or all)',
        'Keys=KEY,...' => 'host keys (default BRIDGE_KEYS)',
        'BearerKeys=yes' => 'send the keys as they are, for the original proxy and old versions (default BRIDGE_BEARER_KEYS)',
        'Prefix=/PATH' => 'only paths below this one',
        'IfMethod=GET,HEAD' => 'only requests of a certain kind; and IfPathPrefix=, IfHeader=, IfCookie=, IfMaxBody=, IfClient=',
        'Instance=NAME' => 'the name of this process, to which clients of a sticky site come back',
        "Connections=#{CONNECTIONS}" => 'requests at once, and so bridges at each proxy',
        "Grace=#{Server::GRACE}" => 'seconds that requests may take after TERM'
      }
    end

    # One for each proxy; several share so many places.
    def servers(options, grace, connections)
      names = split(options[:Proxies]) || split(ENV.fetch('BRIDGE_PROXIES', nil)) || []
      raise ArgumentError, 'no proxies: set BRIDGE_PROXIES, or -O Proxies=HOST[:8079]' if names.empty?

      places = Places.new(connections) if names.length > 1
      names.map do |name|
        host, port = place(name)
        Server.new(host, port, split(options[:Hosts]), split(options[:Keys]),
                   prefix: options.fetch(:Prefix, '/'), instance: options[:Instance], predicates: predicates(options),
                   grace: grace, bearer_keys: yes_no(options[:BearerKeys]), places: places,
                   **(host.start_with?(Server::TLS) ? tls(options) : {}))
      end
    end

    def tls(options)
      { ca: options[:Ca], server_name: options[:ServerName], client_cert: split(options[:ClientCert]) }
    end

    # +-O IfMethod=GET,HEAD+ and the like; one that is an array has several values.
    def predicates(options)
      PREDICATES.filter_map { |name, option| [name, options[option]] if options[option] }.to_h
    end

    def yes_no(word)
      return if word.nil?
      raise ArgumentError, 'BearerKeys is yes or no' unless %w[yes no].include?(word)

      word == 'yes'
    end

    def split(list)
      list = list.to_s.split(',').map(&:strip).reject(&:empty?)
      list unless list.empty?
    end

    # Host and port of `host:port`, `host`, `[v6]:port`, `[v6]` or a bare IPv6 address, each with or without `tls://`.
    def place(name)
      scheme = name.start_with?(Server::TLS) ? Server::TLS : ''
      usual = scheme.empty? ? Server::PORT : Server::TLS_PORT
      address = name.delete_prefix(scheme)
      raise ArgumentError, "bad proxy #{name.inspect}: this is a URL; write only its host and port" if address.include?('://')
      return [name, usual] if address.count(':') > 1 && !address.start_with?('[')

      parts = %r{\A(?:\[([^\]]+)\]|([^:\[\]/]+))(?::(\d{1,5}))?\z}.match(address)
      raise ArgumentError, "bad proxy #{name.inspect}" unless parts

      ["#{scheme}#{parts[1] || parts[2]}", (parts[3] || usual).to_i]
    end

    # Puma counts a connection twice until the thread that is started for it runs. If it then has no threads left it accepts
    # nothing, and is not woken when the thread runs, but when one is idle, which may be never under load. So it is allowed
    # twice as many as there are bridges, which alone limit the requests.
    def server_of(app, bridges)
      options = { min_threads: 0, max_threads: 2 * bridges, persistent_timeout: KEEP_ALIVE }
      # Since Puma 6 the second argument has a default that fits.
      return Puma::Server.new(app, nil, options) if defined?(Puma::LogWriter)

      Puma::Server.new(app, Puma::Events.stdio, options)
    end

    # A queue that is given the first of the signals. Another, ONE_STOP later or more, has its default action.
    def caught
      signals = Queue.new
      first = nil
      %w[INT TERM].each do |name|
        trap(name) do
          if first.nil?
            first = CloudBridge.now
            signals << name
          elsif CloudBridge.now - first >= ONE_STOP
            trap(name, 'DEFAULT')
            Process.kill(name, Process.pid)
          end
        end
      end
      signals
    end
  end
end
