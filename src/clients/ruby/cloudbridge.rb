# frozen_string_literal: true

# cloudbridge for Ruby (2.7 or later, no gems): a server socket that has no port.
#
#     require 'cloudbridge'
#
#     server = CloudBridge::Server.new('proxy.example.com', 8079, ['app.example.com'])
#     %w[INT TERM].each { |signal| trap(signal) { server.close } }
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
# It has the interface of the original CloudBridge library, and replaces a TCPServer: #accept dials the proxy, registers for
# the hosts, waits for a request, and returns a TCPSocket whose next bytes are that request. Each accepted socket carries one
# request at a time. Close it after the response, or, if the response has no `Connection: close`, keep it: then the next
# request may come over it, from any client. If you keep it, read each body to its end: what is left of one would be taken
# for the next request, and its answer would go to another client.
#
# Any number of threads may accept at once; the number of threads is the number of requests at once. The default hosts and
# keys are in BRIDGE_HOSTS and BRIDGE_KEYS, separated by commas; without any host it is `*`.
#
# A proxy `tls://proxy.example.com` is dialled by TLS, at port 8443 unless another is given, and #accept returns an
# OpenSSL::SSL::SSLSocket that has what servers use of a TCPSocket. For such proxies there are the options +ca+, +server_name+
# and +client_cert+.
#
# Keys are proven to the proxy and not sent. The original proxy and old versions need them as they are, and everybody on the way
# can then use them: `bearer_keys: true`, or BRIDGE_BEARER_KEYS=yes, allows that.
#
# The protocol is in doc/protocol.md.

require 'digest'
require 'io/wait'
require 'openssl'
require 'securerandom'
require 'socket'

# See the head of this file.
module CloudBridge
  # The version of this module, which is that of the proxy it came with.
  VERSION = '0.2.0'

  # A host key of the original's form, for +hostname+ and every name below it. `cloudbridge-key` makes these too.
  def self.generate_key(secret_key, hostname, timestamp = Time.now)
    "#{Digest::SHA1.hexdigest("#{secret_key}:#{timestamp.to_i}:#{hostname}")}:#{timestamp.to_i}:#{hostname}"
  end

  # The secret of this file that is in force at +for_time+: lines `timestamp:secret`, rising.
  def self.secret_for_timestamp(secrets_file, for_time)
    lines = File.readlines(secrets_file, chomp: true).map { |line| line.split(':', 2) }
    lines.select! { |line| line.length == 2 }
    raise 'Failed to find any secrets in the secrets file.' if lines.empty?

    # Before the first line, its secret applies.
    (lines.reverse.find { |since, _| since.to_i <= for_time.to_i } || lines.first).last
  end

  # Adds a secret that is in force from now.
  def self.add_secret(secrets_file, secret)
    File.open(secrets_file, 'a', 0o600) { |file| file.puts("#{Time.now.to_i}:#{secret}") }
  end

  # Raised when a proxy refuses a bridge, with +refusals: :raise+.
  class Refused < RuntimeError
    # The status, such as 401 for a host without a valid key, and the proxy's explanation in one line.
    attr_reader :status, :reason
    # When to try again, in seconds, or 0.
    attr_reader :retry_after

    def initialize(status, reason, retry_after)
      super("HTTP BRIDGE error #{status}: #{reason} waiting for connection.")
      @status = status
      @reason = reason
      @retry_after = retry_after
    end
  end

  # When the proxy may be dialled, and the last message about it. Until the proxy has accepted a bridge, only one thread
  # dials, and the others wait.
  class Pace
    # In seconds. The first pause after a failure; it doubles up to the longest, which is short: a missing bridge is missing
    # capacity.
    FIRST_WAIT = 0.05
    LONGEST_WAIT = 1.0
    # The pause after a refusal, or when the proxy cannot be trusted: an operator has to fix the key or the certificate.
    REFUSED_WAIT = 30.0
    # The pause after "too many bridges" without Retry-After, and the longest with it.
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

    # One dial, until the proxy has answered.
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
        finish(turn)
        @failures = 0
        @proven = true
        # A proxy with a limit refuses the excess bridges again and again.
        @said = nil unless @said == 503
      end
    end

    # A bridge was closed before the proxy had accepted it, or just after.
    def failed(turn, why)
      change do
        finish(turn)
        # Simultaneous failures count as one.
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
        finish(turn)
        pause(wait + rand * FIRST_WAIT)
        line = "#{@name} refused the bridge: #{error.status} #{error.reason}; asking again every #{wait.round} s"
        say(error.status, line)
      end
    end

    # The proxy cannot be trusted, or does not trust us, or speaks no TLS.
    def distrusted(turn, why)
      change do
        finish(turn)
        pause(REFUSED_WAIT + rand * FIRST_WAIT)
        say(why, "no bridge to #{@name}: #{why}; it is tried again every #{REFUSED_WAIT.round} s")
      end
    end

    # A parked bridge was closed: dial again, but not all at the same moment.
    def lost
      change { pause(rand * FIRST_WAIT) }
    end

    # A thread has given up, perhaps while it was dialling.
    def given_up(turn)
      change { finish(turn) }
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

    def finish(turn)
      @trying -= 1 unless turn.over
      turn.over = true
    end

    def pause(wait)
      @proven = false
      @not_before = [@not_before, CloudBridge.now + wait].max
    end

    # The last message is not repeated.
    def say(what, line)
      return if @said == what || @closed

      @said = what
      warn("cloudbridge: #{line}")
    end
  end

  # A BRIDGE request on one connection. Keys are not sent but proven (doc/protocol.md, "Proof of keys"): the first request names
  # them without their hashes, and when the proxy has answered with a nonce, the second has the proofs.
  class Registration
    # A Host-Key line with a hash: what is before it, the hash, and what is behind it.
    WITH_HASH = /^(Host-Key: (?:v\d+:)?)(\h+)(?=:)/.freeze

    # What is sent first.
    attr_reader :first

    # +lines+ is the request without the blank line.
    def initialize(lines, proves)
      @lines = lines
      @own = proves ? SecureRandom.hex(16) : nil
      @first = with { 'proof' }
    end

    # Whether the proxy is asked for a nonce that has not come yet.
    def asks?
      !@own.nil?
    end

    # What is sent after the proxy's nonce.
    def prove(nonce)
      # The empty line is for what could tie the proof to its connection; nothing does.
      signed = "cloudbridge-proof-1\n#{nonce}\n\n#{Digest::SHA256.hexdigest(@first)}\n"
      second = with { |hash| "proof-#{OpenSSL::HMAC.hexdigest('SHA256', hash.downcase, signed)}" }
      @own = nil
      second
    end

    # The keys are not shown.
    def inspect
      "#<#{self.class}>"
    end

    private

    def with
      return "#{@lines}\r\n" unless @own

      "#{@lines.gsub(WITH_HASH) { "#{Regexp.last_match(1)}#{yield(Regexp.last_match(2))}" }}Cloudbridge-Nonce: #{@own}\r\n\r\n"
    end
  end

  # Seconds of a monotonic clock.
  def self.now
    Process.clock_gettime(Process::CLOCK_MONOTONIC)
  end

  # The proxy cannot be trusted, or does not trust us, or speaks no TLS. Its message says why.
  class Distrusted < IOError; end

  # How a +tls://+ proxy is dialled. +ca+: the file of the issuers that its certificate may be from, by default those that this
  # machine trusts. +server_name+: the name that it must be for, by default the one that is dialled. +client_cert+: the files of
  # our own certificate and its private key, for a proxy that asks for one. All in PEM. The files are read when this is made, and
  # again when the proxy cannot be trusted or does not trust us.
  class Tls
    # In seconds.
    HANDSHAKE_WITHIN = 5
    # What is wrong with a certificate, by OpenSSL's numbers (X509_V_ERR_...).
    UNKNOWN_ISSUER = 'its certificate is from an issuer that is not trusted here'
    DISTRUST = {
      2 => UNKNOWN_ISSUER,
      9 => "its certificate is not valid yet, or this machine's clock is wrong",
      10 => "its certificate has expired, or this machine's clock is wrong",
      18 => UNKNOWN_ISSUER, 19 => UNKNOWN_ISSUER, 20 => UNKNOWN_ISSUER, 21 => UNKNOWN_ISSUER, 27 => UNKNOWN_ISSUER
    }.freeze
    CERTIFICATE = /-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----/m.freeze

    # Raises ArgumentError, with one sentence, for files that cannot be read or used.
    def initialize(host, ca: nil, server_name: nil, client_cert: nil)
      # Only programs that dial by TLS need it.
      require 'openssl'
      raise ArgumentError, 'client_cert is not the names of two files' unless client_cert.nil? || client_cert.length == 2

      @name = server_name || host
      @ca = ca
      @client_cert = client_cert
      @context = read
      @stale = false
    end

    # The files are read again for the next attempt: one of them may have been corrected by then.
    def forget
      @stale = true
    end

    # This connection, within TLS. Raises Distrusted.
    def wrap(tcp)
      tls = OpenSSL::SSL::SSLSocket.new(tcp, current)
      tls.sync_close = true
      tls.hostname = @name unless address?
      shake_hands(tls)
      tls.extend(Encrypted)
    end

    # Why the peer cannot be trusted, or does not trust us, or speaks no TLS.
    def self.reason(error)
      error.message.sub(/\ASSL_\w+ returned=.*?state=/, '').sub(/\A[^:]*: /, '')
    end

    private

    # Read again if that is due, and possible.
    def current
      stale, @stale = @stale, false
      stale ? @context = read : @context
    rescue ArgumentError
      @context
    end

    def address?
      IPAddr.new(@name)
      true
    rescue IPAddr::Error
      false
    end

    def read
      require 'ipaddr'
      context = OpenSSL::SSL::SSLContext.new
      context.min_version = OpenSSL::SSL::TLS1_2_VERSION
      context.alpn_protocols = ['http/1.1']
      context.verify_mode = OpenSSL::SSL::VERIFY_PEER
      # The name is compared afterwards, because it may be an IP address.
      context.verify_hostname = false
      context.cert_store = issuers
      identify(context) if @client_cert
      context
    end

    def issuers
      store = OpenSSL::X509::Store.new
      # An issuer in the file need not be one that has issued itself.
      store.flags = 0x80000 # X509_V_FLAG_PARTIAL_CHAIN
      return store.tap(&:set_default_paths) unless @ca

      # OpenSSL does not say why it cannot read a file.
      File.read(@ca)
      store.add_file(@ca)
    rescue SystemCallError, OpenSSL::X509::StoreError => e
      raise ArgumentError, "cannot use #{@ca}: #{e.message}"
    end

    def identify(context)
      chain, key = @client_cert.map { |file| File.read(file) }
      own, *others = chain.scan(CERTIFICATE).map { |text| OpenSSL::X509::Certificate.new(text) }
      raise ArgumentError, "cannot use #{@client_cert[0]}: it holds no certificate" unless own

      context.add_certificate(own, OpenSSL::PKey.read(key), others)
    rescue SystemCallError, OpenSSL::OpenSSLError, TypeError => e
      raise ArgumentError, "cannot use #{@client_cert.join(' and ')}: #{e.message}"
    end

    def shake_hands(tls)
      till = CloudBridge.now + HANDSHAKE_WITHIN
      begin
        tls.connect_nonblock
      rescue IO::WaitReadable, IO::WaitWritable => e
        left = till - CloudBridge.now
        raise IOError, 'the handshake takes too long' if left <= 0

        e.is_a?(IO::WaitReadable) ? tls.to_io.wait_readable(left) : tls.to_io.wait_writable(left)
        retry
      end
      raise Distrusted, wrong_name(tls.peer_cert) unless OpenSSL::SSL.verify_certificate_identity(tls.peer_cert, @name)
    rescue OpenSSL::SSL::SSLError => e
      raise IOError, 'the connection ended in the handshake' if e.message.include?('unexpected eof')

      raise Distrusted, DISTRUST[tls.verify_result] || Tls.reason(e)
    end

    def wrong_name(certificate)
      names = certificate.extensions.find { |one| one.oid == 'subjectAltName' }&.value.to_s.gsub(/(DNS|IP Address):/, '')
      "its certificate is for #{names.empty? ? 'no name' : names}, not for #{@name}"
    end
  end

  # What servers use of a TCPSocket, and an SSLSocket does not have. A connection that breaks raises the same as a TCPSocket.
  module Encrypted
    # The address of the proxy.
    def remote_address
      to_io.remote_address
    end

    def wait_readable(timeout = nil)
      pending.positive? || buffered? ? self : to_io.wait_readable(timeout) && self
    end

    def wait_writable(timeout = nil)
      to_io.wait_writable(timeout) && self
    end

    # For whole strings, which are read first then.
    def ungetbyte(bytes)
      text = bytes.is_a?(Integer) ? bytes.chr : bytes.b
      text.each_char.reverse_each { |byte| ungetc(byte) }
      nil
    end

    # Ends our side: a close_notify before the FIN. What the other side sends can still be read.
    def close_write
      flush
      begin
        send(:stop)
      rescue OpenSSL::SSL::SSLError
        # It is gone already.
      end
      to_io.shutdown(Socket::SHUT_WR)
    end

    # At once, without a close_notify.
    def shutdown(how = Socket::SHUT_RDWR)
      to_io.shutdown(how)
    end

    def sysread(*given, **options)
      broken { super(*given, **options) }
    end

    def syswrite(*given, **options)
      broken { super(*given, **options) }
    end

    private

    # Whether bytes have been taken from OpenSSL that nobody has read. The variable's name depends on the version.
    def buffered?
      [@rbuf, @rbuffer].any? { |bytes| bytes && !bytes.empty? }
    end

    def sysread_nonblock(*given, **options)
      broken { super(*given, **options) }
    end

    def syswrite_nonblock(*given, **options)
      broken { super(*given, **options) }
    end

    def broken
      yield
    rescue IO::WaitReadable, IO::WaitWritable
      raise
    rescue OpenSSL::SSL::SSLError => e
      raise Errno::ECONNRESET, Tls.reason(e)
    end
  end

  # One connection to the proxy that no request has come over yet.
  class Bridge
    # In seconds: how long one address may take to answer a connect, and the proxy to answer a BRIDGE.
    CONNECT_WITHIN = 5
    ANSWER_WITHIN = 10
    ACKNOWLEDGEMENT = "HTTP/1.1 100 Continue\r\n\r\n"
    # Most bytes of an answer to BRIDGE. The proxy's own are a few dozen.
    MAX_ANSWER = 8 * 1024
    # Most characters of a refusal that are printed.
    MAX_REASON = 256
    # When the kernel probes an idle connection, how often, and how many times. This detects a dead proxy, because a bridge
    # that has served a request gets no pings.
    KEEPALIVE = { TCP_KEEPIDLE: 15, TCP_KEEPINTVL: 5, TCP_KEEPCNT: 3 }.freeze

    # A head from the proxy: its status, phrase and fields by lower-case name.
    Answer = Struct.new(:status, :phrase, :fields) do
      # With which the keys are to be proven, if it asks for that.
      def nonce
        nonce = fields['cloudbridge-nonce'].to_s
        nonce if status == 401 && fields['content-length'] == '0' && /\A[0-9a-f]{32}\z/.match?(nonce)
      end
    end

    attr_reader :socket, :address, :parked_at
    # Bytes that have been read and not used.
    attr_reader :held
    # The Line of a bridge whose program shares places between proxies.
    attr_accessor :line

    # Dials, trying each address of the name, by TLS if +tls+ says how.
    def initialize(host, port, options, tls = nil)
      dialled = Socket.tcp(host, port, connect_timeout: CONNECT_WITHIN)
      # Servers call methods of a TCPSocket that a plain Socket does not have (peeraddr).
      @socket = TCPSocket.for_fd(dialled.fileno)
      dialled.autoclose = false
      @address = @socket.remote_address
      @parked_at = nil
      @leaves = false
      @serves = false
      @held = +''.b
      @socket.setsockopt(Socket::IPPROTO_TCP, Socket::TCP_NODELAY, 1)
      @socket.setsockopt(Socket::SOL_SOCKET, Socket::SO_KEEPALIVE, 1)
      KEEPALIVE.each do |name, value|
        @socket.setsockopt(Socket::IPPROTO_TCP, Socket.const_get(name), value) if Socket.const_defined?(name)
      end
      options.each { |option| @socket.setsockopt(*option) }
      encrypt(tls) if tls
    end

    # Whether the proxy supports deregistration.
    def leaves?
      @leaves
    end

    # Registers the bridge and waits for a match; yields the extensions of the proxy when it has accepted it. Returns true when a
    # request has been matched, false if the proxy wants a new connection.
    def await_match(registration, silence)
      @socket.write(registration.first)
      loop do
        answer = next_answer(@parked_at ? silence : ANSWER_WITHIN) or return true
        if registration.asks? && answer.nonce && !@parked_at
          @socket.write(registration.prove(answer.nonce))
          next
        end
        unless @parked_at || answer.status >= 200
          @parked_at = CloudBridge.now
          extensions = answer.fields.fetch('cloudbridge-extensions', '').split(',').map(&:strip)
          @leaves = extensions.include?('leave')
          yield extensions
        end
        @line&.heard(answer.fields['cloudbridge-waiting']) if answer.status == 100
        if answer.status == 101
          return true if @line.nil? || @line.room?

          # No pings come any more, and what comes next may be a request.
          @serves = true
          silence = nil
        end
        next if answer.status < 200
        return false if answer.status == 504 && @parked_at
        raise IOError, '504 at once' if answer.status == 504

        raise refusal(answer, unasked: registration.asks? && !@parked_at)
      end
    end

    # Asks the proxy on this connection to close bridges; true if it agrees.
    def self.left?(line, registration)
      line.write(registration.first)
      answer = head_of(line)
      if answer&.nonce && registration.asks?
        line.write(registration.prove(answer.nonce))
        answer = head_of(line)
      end
      answer&.status == 200
    end

    # The next answer on a connection; nil if none comes in time. What comes behind it is dropped: it is the text of a last answer.
    def self.head_of(line)
      till = CloudBridge.now + ANSWER_WITHIN
      head = +''.b
      until (over = head.index("\r\n\r\n"))
        more = line.read_nonblock(MAX_ANSWER, exception: false)
        if more.is_a?(Symbol)
          left = till - CloudBridge.now
          return nil unless left.positive? && line.wait_readable(left)
        else
          return nil if more.nil? || head.bytesize > MAX_ANSWER

          head << more
        end
      end
      parse(head[0, over])
    end

    # A head; nil if it is not HTTP.
    def self.parse(head)
      first, *lines = head.strip.split("\r\n")
      parts = %r{\AHTTP/1\.[01] (\d{3})(?: (.*))?\z}.match(first.to_s)
      return nil unless parts

      fields = lines.map { |line| line.split(':', 2) }.to_h { |name, value| [name.downcase, value.to_s.strip] }
      Answer.new(parts[1].to_i, parts[2].to_s, fields)
    end
    private_class_method :head_of

    # Acknowledges the match. Bytes of the request that were read already are pushed back.
    def acknowledge
      return pass_on if @line

      @socket.ungetbyte(@held) unless @held.empty?
      @socket.write(ACKNOWLEDGEMENT)
    end

    # Wakes the thread that waits here, which finds the connection closed.
    def cut
      @socket.shutdown
    rescue IOError, SystemCallError
      # It is closed already.
    end

    private

    def encrypt(tls)
      @socket = tls.wrap(@socket)
    rescue StandardError
      @socket.close
      raise
    end

    HTTP = 'HTTP/1.'
    NO_PROXY = 'the peer is not a proxy'
    # Said of a proxy that refuses keys without their hashes.
    UNASKED = ' (it did not ask for a proof of the host keys; the original and old versions do not, and bearer_keys sends ' \
              'them the keys as they are)'
    private_constant :HTTP, :NO_PROXY, :UNASKED

    def pass_on
      @line.hold(@held)
      @line.send_own(ACKNOWLEDGEMENT) unless request?
    end

    # Whether what has come is a request, on a bridge that has been acknowledged before.
    def request?
      @serves && !@held.empty? && !@held.start_with?(HTTP[0, @held.bytesize])
    end

    # nil: a request has come in its place.
    def next_answer(within)
      return nil if request?

      until (over = @held.index("\r\n\r\n"))
        raise IOError, NO_PROXY if @held.bytesize > MAX_ANSWER

        read_more(within)
        return nil if request?
        raise IOError, NO_PROXY unless @held.start_with?(HTTP[0, @held.bytesize])
      end
      Bridge.parse(@held.slice!(0, over + 4)) or raise IOError, NO_PROXY
    end

    def read_more(within)
      raise IOError, 'the proxy has fallen silent' unless @socket.wait_readable(within)

      @held << @socket.read_nonblock(MAX_ANSWER)
    rescue IO::WaitReadable
      retry
    rescue Errno::ECONNRESET => e
      # An alert: the proxy does not accept our certificate.
      raise @parked_at.nil? && e.message.include?('alert') ? Distrusted.new(e.message.split(' - ', 2).last) : e
    rescue EOFError
      raise IOError, 'the proxy closed the connection'
    end

    def refusal(answer, unasked:)
      length = [answer.fields['content-length'].to_i, MAX_ANSWER].min
      begin
        read_more(ANSWER_WITHIN) while @held.bytesize < length
      rescue IOError, SystemCallError
        # The status is enough; an explanation that does not come can be missed.
      end
      line = @held.byteslice(0, length).to_s.lines.first.to_s.strip
      reason = (line.empty? ? answer.phrase : line)[0, MAX_REASON].gsub(/[^\x20-\x7e]/n, '?')
      reason += UNASKED if unasked && [400, 401].include?(answer.status)
      Refused.new(answer.status, reason, answer.fields['retry-after'].to_i)
    end
  end

  # A TCPServer whose connections come from the proxy.
  class Server
    # The default port of a proxy; what is in front of the host of one that is dialled by TLS, and its default port.
    PORT = 8079
    TLS = 'tls://'
    TLS_PORT = 8443
    # The default ping interval of the proxy, in seconds.
    PING_INTERVAL = 15
    # Pings that may be missed before the proxy counts as gone: one may be late, two may be bad luck.
    MISSED_PINGS = 3
    # The default time for the proxy to close parked bridges after #close, in seconds.
    GRACE = 30
    # A bridge that is closed so soon after it was accepted, in seconds, counts as a failure.
    SHORT_LIFE = 1.0
    # Most fields that a proxy takes in a BRIDGE.
    MAX_FIELDS = 100
    # What a server that shares places uses: it gives requests back, reads between two of them, and says how many it may be given.
    EXTENSIONS = 'undelivered, probes, places'
    private_constant :EXTENSIONS

    # +refusals+: +:retry+ prints a refusal (a bad key, too many bridges) once to standard error and tries again, slowly;
    # +:raise+ raises Refused from #accept, as the original did. +prefix+: only paths below this one. +instance+: the name of this
    # process, the same at all proxies and after a restart, to which clients of a sticky site come back. +predicates+: only
    # requests of a certain kind: names of +If-*+ fields with one value or several. +ping_interval+ is the proxy's, and +grace+ is
    # the time for the deregistration, in seconds. +bearer_keys+: whether the keys are sent as they are,
    # and not proven. If +cloud_host+ begins with +tls://+ the proxy is dialled by TLS, and the default port is 8443; +ca+,
    # +server_name+ and +client_cert+ are those of Tls, by default BRIDGE_CA, BRIDGE_SERVER_NAME and BRIDGE_CLIENT_CERT, the two
    # files of the last separated by a comma. +places+: the Places that this server shares with those at other proxies; then
    # #accept returns a Stream, which has what servers use of a TCPSocket.
    def initialize(cloud_host, cloud_port = nil, listen_hosts = nil, listen_keys = nil,
                   prefix: '/', instance: nil, predicates: {}, refusals: :retry, ping_interval: PING_INTERVAL,
                   grace: GRACE, bearer_keys: nil,
                   ca: nil, server_name: nil, client_cert: nil, places: nil)
      encrypted = cloud_host.start_with?(TLS)
      @host = encrypted ? cloud_host.delete_prefix(TLS) : cloud_host
      @port = cloud_port || (encrypted ? TLS_PORT : PORT)
      @tls = tls(encrypted, ca: ca, server_name: server_name, client_cert: client_cert)
      more = demands(predicates) + named(instance)
      @offer = offer(prefix, listed(listen_hosts, 'BRIDGE_HOSTS', ['*']), listed(listen_keys, 'BRIDGE_KEYS', []), more)
      # A key that begins with a colon proves nothing, but names us in statistics.
      secret = @offer.lines.select { |line| line.start_with?('Host-Key: ') && !line.start_with?('Host-Key: :') }
      @proves = !bearer_keys?(bearer_keys) && secret.any?
      # What is no key might be one with a slip of the pen, and must not be sent.
      raise ArgumentError, 'bad host key' if @proves && !secret.all?(Registration::WITH_HASH)
      raise ArgumentError, 'too many hosts, keys and predicates' if @proves && @offer.count("\n") > MAX_FIELDS - 1

      @token = SecureRandom.hex(16)
      @places = places
      @proxy = places&.proxy(@token)
      @refusals = refusals
      @silence = ping_interval * MISSED_PINGS
      @grace = grace
      @options = []
      @pace = Pace.new("#{cloud_host}:#{@port}")
      @lock = Mutex.new
      @closed = false
      # Bridges in #accept, and the addresses of proxies of accepted sockets that support deregistration.
      @waiting = {}.compare_by_identity
      @given = {}.compare_by_identity
    end

    # Options for each socket, in the form of setsockopt.
    def setsockopt(*args)
      @options.push(args)
    end

    # No backlog: the queue is in the proxy.
    def listen(_backlog = nil)
      0
    end

    def closed?
      @closed
    end

    # Whether #accept returns a Stream.
    def shares_places?
      !@places.nil?
    end

    # Waits for a request and returns the socket that it comes over. Failures that may pass are retried without end.
    # Raises IOError when the server is closed.
    def accept
      loop do
        turn = @pace.admit
        raise IOError, 'closed stream' unless turn

        socket = attempt(turn)
        return socket if socket
      end
    end

    # Deregisters from the proxy and returns at once; may be called in a trap. Nothing is dialled any more. Threads in #accept
    # get the requests that still come, and IOError when the proxy has closed their bridge, or after +grace+ seconds. So wait
    # for these threads before the program ends.
    def close
      return nil if @closed

      @closed = true
      # A trap must not take a lock.
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

    def tls(encrypted, **options)
      unless encrypted
        given = options.find { |_, value| value }
        raise ArgumentError, "#{given[0]} is given, but the proxy does not begin with #{TLS}" if given

        return nil
      end
      variable = ->(name) { ENV.fetch(name, '').strip.then { |text| text unless text.empty? } }
      options[:ca] ||= variable['BRIDGE_CA']
      options[:server_name] ||= variable['BRIDGE_SERVER_NAME']
      options[:client_cert] ||= variable['BRIDGE_CLIENT_CERT']&.split(',')
      Tls.new(@host, **options)
    end

    def bearer_keys?(given)
      return given unless given.nil?

      word = ENV.fetch('BRIDGE_BEARER_KEYS', '')
      raise ArgumentError, 'BRIDGE_BEARER_KEYS is yes or no' unless ['', 'yes', 'no'].include?(word)

      word == 'yes'
    end

    # The BRIDGE request with more fields, for one connection.
    def registration(*fields)
      Registration.new("#{@offer}#{fields.map { |field| "#{field}\r\n" }.join}", @proves)
    end

    def demands(predicates)
      lines = predicates.flat_map { |name, values| Array(values).map { |value| "#{name}: #{value}" } }
      lines.each { |line| raise ArgumentError, "bad predicate #{line.inspect}" unless /\AIf-[a-z-]+: [ -~]+\z/i.match?(line) }
    end

    def named(instance)
      return [] if instance.nil?
      raise ArgumentError, "bad instance #{instance.inspect}" unless /\A[!-~]{1,128}\z/.match?(instance)

      ["Cloudbridge-Instance: #{instance}"]
    end

    def offer(prefix, hosts, keys, more)
      # No part may contain a line end.
      hosts.each { |host| raise ArgumentError, "bad host #{host.inspect}" unless /\A[!-~]+\z/.match?(host) }
      raise ArgumentError, "bad prefix #{prefix.inspect}" unless %r{\A/[!-~]*\z}.match?(prefix)
      raise ArgumentError, 'bad host key' unless keys.all? { |key| /\A[!-~]+\z/.match?(key) }

      ["BRIDGE #{prefix} HTTP/1.1", *hosts.map { |host| "Host: #{host}" }, *keys.map { |key| "Host-Key: #{key}" }, *more]
        .map { |line| "#{line}\r\n" }.join
    end

    # One connection to the proxy. Returns the socket, or nil to try again.
    def attempt(turn)
      given = nil
      bridge = Bridge.new(@host, @port, @options, @tls)
      given = give(bridge) if wait_at(bridge) && match(turn, bridge)
    rescue Refused => e
      @pace.refused(turn, e)
      raise if @refusals == :raise

      nil
    rescue Distrusted => e
      @tls.forget
      @pace.distrusted(turn, e.message)
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
      # The name of the module is left out where it would be one field more than a proxy takes.
      fields = ["Cloudbridge-Backend: #{@token}", ("Cloudbridge-Extensions: #{EXTENSIONS}" if @places),
                "User-Agent: cloudbridge-ruby/#{VERSION}"].compact
      fields.pop while fields.length > 1 && @offer.count("\n") - 1 + fields.length > MAX_FIELDS - (@proves ? 1 : 0)
      asked_at = CloudBridge.now
      matched = bridge.await_match(registration(*fields), @silence) do |extensions|
        @pace.accepted(turn)
        @proxy&.answered(CloudBridge.now - asked_at)
        bridge.line = Line.new(@places, @proxy, bridge.socket, extensions.include?('places')) if @places
      end
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

    # Adds a parked bridge; false if the server has been closed.
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
      (bridge.line || bridge.socket).close
    end

    # From here on the bridge is the caller's, unless #close has just cut it: then it is not acknowledged, and the proxy sends
    # the request to another bridge.
    def give(bridge)
      ours = @lock.synchronize do
        @given.delete_if { |socket, _| socket.closed? }
        @given[bridge.socket] = bridge.address if bridge.leaves?
        @waiting.delete(bridge)
      end
      return nil unless ours

      bridge.acknowledge
      bridge.line ? Stream.new(bridge.line) : bridge.socket
    end

    # The rest of #close.
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

    # A bridge that is cut is not returned any more: both happen under the lock.
    def cut_those(&which)
      @lock.synchronize do
        @waiting.keys.select(&which).each do |bridge|
          @waiting.delete(bridge)
          bridge.cut
        end
      end
    end

    # Asks the proxy process at this address to close our bridges; true if it agrees.
    def left?(address)
      line = address.connect(timeout: Bridge::CONNECT_WITHIN)
      line = @tls.wrap(line) if @tls
      Bridge.left?(line, registration("Cloudbridge-Leave: #{@token}"))
    rescue IOError, SystemCallError
      false
    ensure
      line&.close
    end
  end
end
