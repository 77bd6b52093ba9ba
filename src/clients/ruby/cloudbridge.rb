# frozen_string_literal: true

# cloudbridge for Ruby (2.7 or later, no gems): a server socket that has no port.
#
#     require 'cloudbridge'
#
#     server = CloudBridge::Server.new('proxy.example.com', 8079, ['app.example.com'])
#     trap('TERM') { server.close }
#     threads = Array.new(8) do
#       Thread.new do
#         while (socket = server.accept)
#           nil until socket.gets("\r\n").strip.empty? # the request
#           socket.write("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 6\r\n\r\nhello\n")
#           socket.close
#         end
#       rescue IOError
#         # closed
#       end
#     end
#     threads.each(&:join)
#
# It has the interface of the original CloudBridge library, and stands in the place of a TCPServer: #accept dials the proxy,
# offers to serve the hosts, waits there for a request, and returns a TCPSocket whose next bytes are that request. Each
# accepted socket carries one request at a time. Close it after the response, or keep it, if the response does not say
# `Connection: close`: then the next request may come over it, of whichever client.
#
# Any number of threads may accept at once, and each that does is a request that this program can serve. Hosts and keys that
# are not given are those of BRIDGE_HOSTS and BRIDGE_KEYS, with commas between them; without any host it is `*`.
#
# The protocol is in doc/protocol.md.

require 'digest'
require 'io/wait'
require 'securerandom'
require 'socket'

# See the head of this file.
module CloudBridge
  # The original's host key: it covers +hostname+ and every name below it. `cloudbridge-key` makes these too.
  def self.generate_key(secret_key, hostname, timestamp = Time.now)
    "#{Digest::SHA1.hexdigest("#{secret_key}:#{timestamp.to_i}:#{hostname}")}:#{timestamp.to_i}:#{hostname}"
  end

  # The secret of this file that is in force at +for_time+: lines `timestamp:secret`, rising.
  def self.secret_for_timestamp(secrets_file, for_time)
    lines = File.readlines(secrets_file, chomp: true).map { |line| line.split(':', 2) }
    lines.select! { |line| line.length == 2 }
    raise 'Failed to find any secrets in the secrets file.' if lines.empty?

    # What is older than the first line was made with it.
    (lines.reverse.find { |since, _| since.to_i <= for_time.to_i } || lines.first).last
  end

  # Adds a secret that is in force from now on.
  def self.add_secret(secrets_file, secret)
    File.open(secrets_file, 'a', 0o600) { |file| file.puts("#{Time.now.to_i}:#{secret}") }
  end

  # A proxy that has refused a bridge, if refusals are to be raised.
  class Refused < RuntimeError
    # The status, such as 401 for a host without a good key, and the proxy's line of explanation.
    attr_reader :status, :reason
    # When the proxy would like to be asked again, in seconds, or 0.
    attr_reader :retry_after

    def initialize(status, reason, retry_after)
      super("HTTP BRIDGE error #{status}: #{reason} waiting for connection.")
      @status = status
      @reason = reason
      @retry_after = retry_after
    end
  end

  # When the proxy may be dialled, and what has been said about it. Threads that wait here do not dial; while the proxy is
  # not known to take bridges, one thread tries for all.
  class Pace
    # In seconds. The first wait after a failure; it doubles up to the longest. A bridge that is missing is capacity that is
    # missing.
    FIRST_WAIT = 0.05
    LONGEST_WAIT = 1.0
    # How long a proxy that refuses is left alone: a key is mended by an operator.
    REFUSED_WAIT = 30.0
    # The same for one that has too many bridges and does not say, and the longest that one may ask for.
    FULL_WAIT = 5.0
    LONGEST_FULL_WAIT = 60.0

    def initialize(name)
      @name = name
      @lock = Mutex.new
      @changed = ConditionVariable.new
      @failures = 0
      @not_before = 0.0
      @proven = false
      @trying = 0
      @said = nil
      @closed = false
    end

    # One dial, from when it is allowed until it is known what the proxy says to it.
    class Turn
      attr_accessor :over
    end

    # Waits until the proxy may be dialled; nil when the server is closed.
    def admit
      @lock.synchronize do
        until @closed
          wait = @not_before - CloudBridge.now
          wait = LONGEST_FULL_WAIT if wait <= 0 && !@proven && @trying.positive?
          if wait <= 0
            @trying += 1
            return Turn.new
          end
          @changed.wait(@lock, wait)
        end
        nil
      end
    end

    def accepted(turn)
      change do
        settle(turn)
        @failures = 0
        @proven = true
        # One that takes fewer bridges than it is offered refuses the others again and again.
        @said = nil unless @said == 503
      end
    end

    # A bridge was lost before the proxy had accepted it, or at once after that.
    def failed(turn, why)
      change do
        settle(turn)
        # What fails together is one failure.
        if CloudBridge.now >= @not_before
          @failures += 1
          pause([FIRST_WAIT * 2**[@failures - 1, 16].min, LONGEST_WAIT].min * (1 - rand / 2))
        end
        say(:unreachable, "no bridge to #{@name}: #{why}; trying again")
      end
    end

    def refused(turn, error)
      wait = REFUSED_WAIT
      if error.status == 503
        wait = error.retry_after.zero? ? FULL_WAIT : [error.retry_after, LONGEST_FULL_WAIT].min
      end
      change do
        settle(turn)
        pause(wait + rand * FIRST_WAIT)
        line = "#{@name} refused the bridge: #{error.status} #{error.reason}; asking again every #{wait.round} s"
        say(error.status, line)
      end
    end

    # A parked bridge is gone, by the proxy's wish or not: dial again, but not all in one instant.
    def lost
      change { pause(rand * FIRST_WAIT) }
    end

    # A thread has given up, perhaps before anything came of its dial.
    def given_up(turn)
      change { settle(turn) }
    end

    def close
      change { @closed = true }
    end

    private

    def change
      @lock.synchronize do
        yield
        @changed.broadcast
      end
    end

    def settle(turn)
      @trying -= 1 unless turn.over
      turn.over = true
    end

    def pause(wait)
      @proven = false
      @not_before = [@not_before, CloudBridge.now + wait].max
    end

    # What has been said last is not said again.
    def say(what, line)
      return if @said == what || @closed

      @said = what
      warn("cloudbridge: #{line}")
    end
  end

  # Seconds of a clock that nobody sets.
  def self.now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # One connection to the proxy that no request has come over yet.
  class Bridge
    # In seconds: how long one address may take to answer a connect, and the proxy to answer a BRIDGE.
    CONNECT_WITHIN = 5
    ANSWER_WITHIN = 10
    # Most bytes of an answer to BRIDGE. The proxy's own are a few dozen.
    MAX_ANSWER = 8 * 1024
    # Most characters of a refusal that are printed.
    MAX_REASON = 256
    # When the kernel probes an idle connection, how often, and how many times: a bridge that has served a request gets no
    # pings, and a proxy whose machine has gone is found so.
    KEEPALIVE = { TCP_KEEPIDLE: 15, TCP_KEEPINTVL: 5, TCP_KEEPCNT: 3 }.freeze

    # A head of the proxy's: its status, phrase and fields by lower-case name.
    Answer = Struct.new(:status, :phrase, :fields)

    attr_reader :socket, :address, :parked_at

    # Dials, trying each address of the name.
    def initialize(host, port, options)
      dialled = Socket.tcp(host, port, connect_timeout: CONNECT_WITHIN)
      # Servers ask a socket of a TCPServer for more than a plain Socket can do (peeraddr).
      @socket = TCPSocket.for_fd(dialled.fileno)
      dialled.autoclose = false
      @address = @socket.remote_address
      @parked_at = nil
      @leaves = false
      @held = +''.b
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
      @socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_KEEPALIVE, 1)
      KEEPALIVE.each do |name, value|
        @socket.setsockopt(Socket::IPPROTO_TCP, Socket.const_get(name), value) if Socket.const_defined?(name)
      end
      options.each { |option| @socket.setsockopt(*option) }
    end

    # Whether the proxy has said that it can be asked to let us leave.
    def leaves?
      @leaves
    end

    # Offers the bridge and waits for a match; yields when the proxy has accepted it. Returns true when a request has been
    # matched, false if the proxy would have us dial again.
    def await_match(registration, silence)
      @socket.write(registration)
      loop do
        answer = next_answer(@parked_at ? silence : ANSWER_WITHIN)
        unless @parked_at || answer.status >= 200
          @parked_at = CloudBridge.now
          @leaves = answer.fields.fetch('cloudbridge-extensions', '').split(',').map(&:strip).include?('leave')
          yield
        end
        return true if answer.status == 101
        next if answer.status < 200
        return false if answer.status == 504 && @parked_at
        raise IOError, '504 at once' if answer.status == 504

        raise refusal(answer)
      end
    end

    # Says that we are here. Whatever has been read too far is put back in front.
    def acknowledge
      @socket.ungetbyte(@held) unless @held.empty?
      @socket.write(ACKNOWLEDGEMENT)
    end

    # Wakes the thread that waits here, to find the connection at its end.
    def cut
      @socket.shutdown
    rescue IOError, SystemCallError
      # It is at its end already.
    end

    private

    ACKNOWLEDGEMENT = "HTTP/1.1 100 Continue\r\n\r\n"
    HTTP = 'HTTP/1.'
    NO_PROXY = 'what answers there is no proxy'
    private_constant :ACKNOWLEDGEMENT, :HTTP, :NO_PROXY

    def next_answer(within)
      until (over = @held.index("\r\n\r\n"))
        raise IOError, NO_PROXY if @held.bytesize > MAX_ANSWER

        read_more(within)
        raise IOError, NO_PROXY unless @held.start_with?(HTTP[0, @held.bytesize])
      end
      first, *lines = @held.slice!(0, over + 4).strip.split("\r\n")
      parts = %r{\AHTTP/1\.[01] (\d{3})(?: (.*))?\z}.match(first.to_s)
      raise IOError, NO_PROXY unless parts

      fields = lines.map { |line| line.split(':', 2) }.to_h { |name, value| [name.downcase, value.to_s.strip] }
      Answer.new(parts[1].to_i, parts[2].to_s, fields)
    end

    def read_more(within)
      raise IOError, 'the proxy has fallen silent' unless @socket.wait_readable(within)

      @held << @socket.read_nonblock(MAX_ANSWER)
    rescue IO::WaitReadable
      retry
    rescue EOFError
      raise IOError, 'the proxy closed the connection'
    end

    def refusal(answer)
      length = [answer.fields['content-length'].to_i, MAX_ANSWER].min
      begin
        read_more(ANSWER_WITHIN) while @held.bytesize < length
      rescue IOError, SystemCallError
        # The status is the message; an explanation that does not come is done without.
      end
      line = @held.byteslice(0, length).to_s.lines.first.to_s.strip
      reason = (line.empty? ? answer.phrase : line)[0, MAX_REASON].gsub(/[^\x20-\x7e]/n, '?')
      Refused.new(answer.status, reason, answer.fields['retry-after'].to_i)
    end
  end

  # A TCPServer whose connections come from the proxy.
  class Server
    # In seconds: how often the proxy pings a parked bridge unless told otherwise.
    PING_INTERVAL = 15
    # Pings that may be missed before the proxy counts as gone: one may be late, two may be bad luck.
    MISSED_PINGS = 3
    # How long the proxy may take to close parked bridges after #close, in seconds, unless told otherwise.
    GRACE = 30
    # A bridge that is closed so soon after it was accepted, in seconds, was not wanted: it counts as a failure.
    SHORT_LIFE = 1.0

    # +refusals+: +:retry+ tells a refusal (a bad key, too many bridges) once on the standard error output and asks again,
    # slowly; +:raise+ raises Refused from #accept, as the original did. +prefix+: only paths below this one. +ping_interval+
    # is the proxy's, and +grace+ how long it may take to let us leave, in seconds.
    def initialize(cloud_host, cloud_port = 8079, listen_hosts = nil, listen_keys = nil,
                   prefix: '/', refusals: :retry, ping_interval: PING_INTERVAL, grace: GRACE)
      @host = cloud_host
      @port = cloud_port
      @offer = offer(prefix, listed(listen_hosts, 'BRIDGE_HOSTS', ['*']), listed(listen_keys, 'BRIDGE_KEYS', []))
      @token = SecureRandom.hex(16)
      @refusals = refusals
      @silence = ping_interval * MISSED_PINGS
      @grace = grace
      @options = []
      @pace = Pace.new("#{cloud_host}:#{cloud_port}")
      @lock = Mutex.new
      @closed = false
      # Bridges in #accept, and accepted sockets with where their proxy can be asked to let us leave.
      @waiting = {}.compare_by_identity
      @given = {}.compare_by_identity
    end

    # Options for each socket, as setsockopt of a socket takes them.
    def setsockopt(*args)
      @options.push(args)
    end

    # There is no backlog here: the queue is in the proxy.
    def listen(_backlog = nil)
      0
    end

    def closed?
      @closed
    end

    # Waits for a request and returns the socket that it comes over. Whatever may mend itself is tried again without end.
    # Raises IOError when the server is closed.
    def accept
      loop do
        turn = @pace.admit
        raise IOError, 'closed stream' unless turn

        socket = attempt(turn)
        return socket if socket
      end
    end

    # Leaves the proxy and returns at once; may be called in a trap. Nothing is dialled any more. Threads in #accept are given
    # the requests that still come, and IOError when the proxy has closed their bridge, or after +grace+ seconds. So wait
    # for these threads before the program ends.
    def close
      return nil if @closed

      @closed = true
      # No lock can be taken in a trap.
      Thread.new { leave }
      nil
    end

    # The keys are not shown.
    def inspect
      "#<#{self.class} #{@host}:#{@port}>"
    end

    private

    def listed(given, name, default)
      list = given.nil? ? ENV.fetch(name, '').split(',').map(&:strip).reject(&:empty?) : Array(given)
      list.empty? ? default : list
    end

    def offer(prefix, hosts, keys)
      # No part may bring a line of its own.
      hosts.each { |host| raise ArgumentError, "bad host #{host.inspect}" unless /\A[!-~]+\z/.match?(host) }
      raise ArgumentError, "bad prefix #{prefix.inspect}" unless %r{\A/[!-~]*\z}.match?(prefix)
      raise ArgumentError, 'bad host key' unless keys.all? { |key| /\A[!-~]+\z/.match?(key) }

      ["BRIDGE #{prefix} HTTP/1.1", *hosts.map { |host| "Host: #{host}" }, *keys.map { |key| "Host-Key: #{key}" }]
        .map { |line| "#{line}\r\n" }.join
    end

    # One connection to the proxy, until something comes of it: a socket, or nil to try again.
    def attempt(turn)
      given = nil
      bridge = Bridge.new(@host, @port, @options)
      given = give(bridge) if wait_at(bridge) && match(turn, bridge)
    rescue Refused => e
      @pace.refused(turn, e)
      raise if @refusals == :raise

      nil
    rescue IOError, SystemCallError, SocketError => e
      failed(turn, bridge, e)
      nil
    ensure
      # Also if this thread is being killed.
      unless given
        @pace.given_up(turn)
        drop(bridge)
      end
    end

    def match(turn, bridge)
      registration = "#{@offer}Cloudbridge-Backend: #{@token}\r\n\r\n"
      matched = bridge.await_match(registration, @silence) { @pace.accepted(turn) }
      @pace.lost unless matched
      matched
    end

    def failed(turn, bridge, error)
      parked_at = bridge&.parked_at
      if parked_at && (@closed || CloudBridge.now - parked_at >= SHORT_LIFE)
        @pace.lost
      else
        @pace.failed(turn, error.message)
      end
    end

    # Notes a bridge that waits; false if the server has been closed meanwhile.
    def wait_at(bridge)
      @lock.synchronize do
        @waiting[bridge] = true unless @closed
        !@closed
      end
    end

    def drop(bridge)
      return unless bridge

      @lock.synchronize do
        @waiting.delete(bridge)
        @given.delete(bridge.socket)
      end
      bridge.socket.close
    end

    # From here on the bridge is the caller's; unless #close has just cut it: then it is not acknowledged, and the request
    # goes to another bridge.
    def give(bridge)
      ours = @lock.synchronize do
        @given.delete_if { |socket, _| socket.closed? }
        @given[bridge.socket] = bridge.address if bridge.leaves?
        @waiting.delete(bridge)
      end
      return nil unless ours

      bridge.acknowledge
      bridge.socket
    end

    # What #close has begun.
    def leave
      @pace.close
      cut_those { |bridge| !bridge.leaves? }
      addresses = @lock.synchronize do
        @waiting.keys.map(&:address) + @given.reject { |socket, _| socket.closed? }.values
      end
      addresses.uniq(&:inspect_sockaddr).each do |address|
        next if left?(address)

        cut_those { |bridge| bridge.address.inspect_sockaddr == address.inspect_sockaddr }
      end
      sleep(@grace)
      cut_those { true }
    end

    # A bridge that is cut is not given any more: both happen under the lock.
    def cut_those(&which)
      @lock.synchronize do
        @waiting.keys.select(&which).each do |bridge|
          @waiting.delete(bridge)
          bridge.cut
        end
      end
    end

    # Asks the proxy process at this address to close our bridges from its side; whether it has agreed.
    def left?(address)
      line = address.connect(timeout: Bridge::CONNECT_WITHIN)
      line.write("#{@offer}Cloudbridge-Leave: #{@token}\r\n\r\n")
      return false unless line.wait_readable(Bridge::ANSWER_WITHIN)

      %r{\AHTTP/1\.[01] 200[ \r]}.match?(line.gets("\r\n", Bridge::MAX_ANSWER).to_s)
    rescue IOError, SystemCallError
      false
    ensure
      line&.close
    end
  end
end
