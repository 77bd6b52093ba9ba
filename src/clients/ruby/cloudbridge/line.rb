# frozen_string_literal: true

require_relative '../cloudbridge'

module CloudBridge
  # How far the body of a message is.
  class Body
    # A line of chunk framing or trailer is no longer than this.
    MAX_LINE = 64 * 1024

    # The body that the fields in this head announce; +otherwise+ if they announce none.
    def self.of(head, otherwise)
      return new(:chunked) if head.match?(/\r\ntransfer-encoding:/i)

      length = head[/\r\ncontent-length:[ \t]*(\d+)/i, 1]
      new(length ? length.to_i : otherwise)
    end

    # So many bytes, +:chunked+, or +:endless+.
    def initialize(size)
      @endless = size == :endless
      @chunked = size == :chunked
      @left = @chunked || @endless ? 0 : size
      @line = +''.b
      @trailer = false
    end

    def over?
      !@endless && !@chunked && @left.zero?
    end

    # Whether only the end of the connection ends it.
    def endless?
      @endless
    end

    # How many of +bytes+, which are binary, belong to it; they are behind it then.
    def take(bytes)
      return bytes.bytesize if @endless
      return take_data(bytes, 0) unless @chunked

      at = 0
      at += @left.positive? ? take_data(bytes, at) : take_line(bytes, at) while @chunked && at < bytes.bytesize
      at
    end

    # As +take+, but nothing changes.
    def measure(bytes)
      dup.take(bytes)
    end

    private

    def initialize_copy(other)
      super
      @line = @line.dup
    end

    def take_data(bytes, at)
      count = [@left, bytes.bytesize - at].min
      @left -= count
      count
    end

    def take_line(bytes, at)
      ends = bytes.index("\n", at)
      part = bytes[at..(ends || -1)]
      @line << part
      raise IOError, 'a line of chunks is too long' if @line.bytesize > MAX_LINE

      framed(@line.slice!(0..)) if ends
      part.bytesize
    end

    def framed(line)
      if @trailer
        @chunked = line != "\r\n"
      elsif (size = line[/\A\h+/])
        # With the line end behind the data.
        @left = size.hex.zero? ? 0 : size.hex + 2
        @trailer = @left.zero?
      else
        raise IOError, 'a chunk has no size'
      end
    end
  end

  # What a program sends over one bridge, as far as it must be understood: where responses begin and end. Fields that only
  # the library may send are taken out.
  class Responses
    # Bytes of a head.
    MAX_HEAD = 1024 * 1024
    RESERVED = /\r\ncloudbridge-[^\r\n]*(?=\r\n)/i.freeze

    def initialize
      @head = +''.b
      @body = nil
      @tunnel = false
      @last = false
      @to_head = false
    end

    # A request has been given to the program.
    def request(method)
      @to_head = method == 'HEAD'
      @last = false
    end

    # Whether no byte of a final response has been passed that has not ended.
    def between?
      !@tunnel && !@last && @body.nil? && @head.empty?
    end

    def tunnel?
      @tunnel
    end

    # No request follows: the bridge ends.
    def last
      @last = true
    end

    # How many of these bytes can be passed as they are, if no more than that is written.
    def plain(bytes)
      return bytes.bytesize if @tunnel

      @body ? @body.measure(bytes) : 0
    end

    # Takes bytes of the program. Returns what is to be sent, and whether a response is over.
    def pass(bytes)
      bytes = bytes.b
      out = +''.b
      over = false
      until bytes.empty?
        if @tunnel
          return [out << bytes, over]
        elsif @body
          out << bytes.slice!(0, @body.take(bytes))
        else
          out << begun(bytes)
        end
        over = ended if @body&.over?
      end
      [out, over]
    end

    private

    # Takes the head of a response, if it is whole.
    def begun(bytes)
      @head << bytes
      bytes.clear
      raise IOError, 'the head of the response is too long' if @head.bytesize > MAX_HEAD
      return '' unless (ends = @head.index("\r\n\r\n"))

      bytes << @head.slice!(ends + 4..)
      head = @head.slice!(0..)
      begin_response(head, head[9, 3].to_i)
      head.gsub(RESERVED, '')
    end

    def begin_response(head, status)
      return @tunnel = true if status == 101
      return if status.between?(100, 199)

      @body = @to_head || [204, 304].include?(status) ? Body.new(0) : Body.of(head, :endless)
      @last = true if @body.endless? || head.match?(/\r\nconnection:[^\r\n]*\bclose\b/i) || !head.start_with?('HTTP/1.1')
    end

    def ended
      @body = nil
      true
    end
  end

  # One bridge of a program that shares places between its proxies: between the connection and the Stream that the program has.
  # It reads the proxy's messages and sends those of the Places.
  class Line
    # Bytes of a head.
    MAX_HEAD = 1024 * 1024
    READ = 16 * 1024
    FROM_PROXY = 'HTTP/1.'
    SWITCH = 'HTTP/1.1 101'
    WAITING = /\A(\d{1,19}|none); at=(\d{1,19})\z/.freeze

    attr_reader :proxy, :socket

    # +speaks+: whether the proxy at its other end knows about places.
    def initialize(places, proxy, socket, speaks)
      @places = places
      @proxy = proxy
      @socket = socket
      @speaks = speaks
      # Bytes of the proxy that have not been looked at, and those that the program gets next.
      @held = +''.b
      @ready = +''.b
      @body = nil
      # The rest of a request that was given back is dropped.
      @drops = false
      @sets_aside = false
      @marked = false
      @turn = nil
      @has_place = false
      @expects = false
      @open = true
      @writing = Mutex.new
      @responses = Responses.new
      # The rest of a message of ours.
      @owed = +''.b
      @places.opened(self) if speaks
    end

    # The socket that a selector watches.
    def to_io
      @socket.to_io
    end

    # A 101 has come. Returns false if there is no place for its request, which the proxy has been told then.
    def room?
      field = @places.announced(self) if @speaks
      give_back(field) if field
      @expects = field.nil?
    end

    # A field of the proxy's, about what waits there.
    def heard(waiting)
      parts = WAITING.match(waiting.to_s)
      @places.waits(@proxy, parts[1] == 'none' ? nil : parts[1].to_i, parts[2].to_i) if parts && @speaks
    end

    # Bytes that were read before.
    def hold(bytes)
      return if bytes.empty?

      @held << bytes
      mark
    end

    # From here on reads that do not wait break the program's stream if a request has to wait for its place. Somebody must call
    # #again then.
    def sets_aside
      @sets_aside = true
    end

    # Whether bytes of the proxy's are here that nobody has read.
    def pending?
      !@ready.empty? || !@held.empty?
    end

    # Bytes for the program; nil at the end, and +:wait+ if nothing has come. With +patient+ it waits instead.
    def read(most, patient)
      loop do
        unmark
        piece = piece(most, patient)
        return patient ? piece : with_the_rest(piece) if piece
        return nil if @turn

        more = receive(most, patient)
        return more unless more.is_a?(String)

        @held << more
      end
    end

    # All of these bytes of the program.
    def write(bytes)
      @writing.synchronize { pass(bytes) }
    end

    # As many of them as the socket takes now, but a head whole. Returns how many, or +:wait+.
    def write_some(bytes)
      @writing.synchronize do
        plain = @owed.empty? ? @responses.plain(bytes.b) : 0
        return pass(bytes) if plain.zero?

        sent = @socket.write_nonblock(bytes.byteslice(0, plain), exception: false)
        return :wait unless sent.is_a?(Integer)

        _, over = @responses.pass(bytes.byteslice(0, sent))
        response_over if over
        sent
      end
    end

    # Whether no request is here, and none is to follow a 101.
    def idle?
      !@has_place && !@expects
    end

    # A message of ours, unless a response is under way. Returns whether it is sent: it does not wait.
    def say(message)
      return false unless @writing.try_lock

      begin
        return false unless @open && @responses.between? && @owed.empty?

        sent = @socket.write_nonblock(message, exception: false)
        # What OpenSSL has taken must be given to it again.
        return false if sent.is_a?(Symbol) && to_io.equal?(@socket)

        @owed << (sent.is_a?(Symbol) ? message : message.byteslice(sent..))
        true
      rescue IOError, SystemCallError
        false
      ensure
        @writing.unlock
      end
    end

    # Bytes of the library's own.
    def send_own(bytes)
      @writing.synchronize { send_all(bytes) }
    end

    # Ends our side.
    def close_write
      @writing.synchronize { @socket.close_write }
    end

    # The program has closed its stream. The connection stays if a request waits for its place.
    def release
      close unless set_aside?
    end

    def set_aside?
      !@turn.nil?
    end

    # Waits for the place of the request that was set aside.
    def again
      @places.await(@turn)
      @turn = nil
      @has_place = true
      mark
    end

    def close
      return unless @open

      @open = false
      @places.closed(self) if @speaks
      give_up_place
      @socket.close
    end

    # Nothing of a request is shown.
    def inspect
      "#<#{self.class}>"
    end

    private

    # Has a selector see that there is something to read, though the socket is empty.
    def mark
      to_io.ungetbyte(0) unless @marked
      @marked = true
    end

    def unmark
      return unless @marked

      @marked = false
      to_io.read_nonblock(1, exception: false)
    end

    # What else is here of this request: a selector would not see it.
    def with_the_rest(piece)
      piece << @held.slice!(0..) if @responses.tunnel?
      while @body && !@held.empty? && (more = of_body(@held.bytesize))
        piece << more
      end
      piece
    end

    # What the program gets next; nil if more has to come before, or a request waits.
    def piece(most, patient)
      loop do
        return @ready.slice!(0, patient ? most : @ready.bytesize) unless @ready.empty?
        return if @held.empty?
        return @held.slice!(0, most) if @responses.tunnel?

        if @body
          part = of_body(most)
          return part if part
        else
          return unless (ends = @held.index("\r\n\r\n"))

          came(@held.slice!(0, ends + 4), patient)
          return if @turn
        end
      end
    ensure
      raise IOError, 'the head of the request is too long' if @body.nil? && @held.bytesize > MAX_HEAD
    end

    def of_body(most)
      part = @held.byteslice(0, most)
      part = @held.slice!(0, @body.take(part))
      dropped = @drops
      @body = nil if @body.over?
      @drops &&= !@body.nil?
      part unless dropped
    end

    # A head from the proxy: a message or a request.
    def came(head, patient)
      return said(head) if head.start_with?(FROM_PROXY)

      # The thread that has just sent the last response may still be about to say so.
      @writing.synchronize { nil } if @has_place
      body = Body.of(head, 0)
      @body = body unless body.over?
      place = @places.arrive(self, @speaks && !head.match?(/\r\nCloudbridge-Held: no\r\n/i))
      if place.is_a?(String)
        @drops = !@body.nil?
        return give_back(place)
      end
      @writing.synchronize { @responses.request(head[/\A\S+/]) }
      @ready << head.gsub(Responses::RESERVED, '')
      @expects = false
      @has_place = place.nil?
      return if @has_place

      @turn = place
      again if patient || !@sets_aside
    end

    # A ping, something about the requests that wait, or a 101 that announces one.
    def said(head)
      return heard(head[/\r\nCloudbridge-Waiting: ([^\r\n]*)\r\n/, 1]) unless head.start_with?(SWITCH)

      send_own(Bridge::ACKNOWLEDGEMENT) if room?
    end

    def give_back(field)
      send_own("HTTP/1.1 503 Service Unavailable\r\nCloudbridge-Undelivered: places\r\n#{field}Content-Length: 0\r\n\r\n")
    end

    def receive(most, patient)
      # No more of a body than the program takes now.
      most = @body && !@drops ? [most, READ].min : READ
      return @socket.readpartial(most) if patient

      more = @socket.read_nonblock(most, exception: false)
      more.is_a?(Symbol) ? :wait : more
    rescue EOFError
      nil
    end

    def send_all(bytes)
      bytes = @owed.slice!(0..) << bytes unless @owed.empty?
      @socket.write(bytes) unless bytes.empty?
    end

    # What the program has written. The bridge is locked.
    def pass(bytes)
      out, over = @responses.pass(bytes)
      send_all(out)
      response_over if over
      bytes.bytesize
    end

    # The proxy ends the bridge if a part of the request is still to come.
    def response_over
      @responses.last if @body
      give_up_place
    end

    def give_up_place
      return unless @has_place

      @has_place = false
      @places.over(@proxy)
    end
  end

  # What the program has of a bridge, in place of a TCPSocket: its requests, and what servers use of a TCPSocket.
  class Stream
    include OpenSSL::Buffering
    include OpenSSL::SSL::SocketForwarder

    # The bridge.
    attr_reader :line

    def initialize(line)
      @io = line.to_io
      @line = line
      @closed = false
      super()
      self.sync = true
    end

    # The connection itself, to wait for. What is read or written there would be missed here.
    def to_io
      @io
    end

    # The address of the proxy.
    def remote_address
      @io.remote_address
    end

    def sysread(most, into = nil)
      bytes = @line.read(most, true) or raise EOFError, 'end of file reached'
      into ? into.replace(bytes) : bytes
    end

    # The head of a request is returned whole, with what came behind it, because a selector would not see what is left.
    def sysread_nonblock(most, into = nil, exception: true)
      bytes = @line.read(most, false)
      # Not the end of the stream: a server that has read that may wait for it once more.
      raise Errno::ECONNRESET, 'it comes again when there is a place' if @line.set_aside?

      if bytes == :wait
        return :wait_readable unless exception

        raise IO::EAGAINWaitReadable, 'read would block'
      end
      raise EOFError, 'end of file reached' if bytes.nil? && exception

      into && bytes ? into.replace(bytes) : bytes
    end

    def syswrite(bytes)
      @line.write(bytes.to_s)
    end

    def syswrite_nonblock(bytes, exception: true)
      count = @line.write_some(bytes.to_s)
      return count unless count == :wait
      return :wait_writable unless exception

      raise IO::EAGAINWaitWritable, 'write would block'
    end

    def wait_readable(timeout = nil)
      @line.pending? || buffered? ? self : @io.wait_readable(timeout) && self
    end

    def wait_writable(timeout = nil)
      @io.wait_writable(timeout) && self
    end

    # Ends our side. What the other side sends can still be read.
    def close_write
      flush
      @line.close_write
    end

    # At once.
    def shutdown(how = Socket::SHUT_RDWR)
      @io.shutdown(how)
    end

    def close
      return if @closed

      @closed = true
      @line.release
    end

    def closed?
      @closed
    end

    private

    # Whether bytes have been read ahead. The variable's name depends on the version.
    def buffered?
      [@rbuf, @rbuffer].any? { |bytes| bytes && !bytes.empty? }
    end
  end
end
