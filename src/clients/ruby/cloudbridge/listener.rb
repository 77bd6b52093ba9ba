# frozen_string_literal: true

require_relative '../cloudbridge'

module CloudBridge
  # Looks like a listening socket to a server that waits with IO.select and then calls #accept_nonblock, as Puma does: each
  # accepted socket carries requests, one at a time, until the proxy closes it.
  #
  # There are always +connections+ bridges, those included that are accepted and not closed. The server must read each body
  # to its end, or close. It should not close a connection between two requests, because one may be on its way.
  class Listener
    # Tells when the server that a socket was given to has closed it.
    module Watched
      attr_writer :on_close

      def close
        super
      ensure
        tell, @on_close = @on_close, nil
        tell&.call
      end
    end

    # +server+ is a CloudBridge::Server.
    def initialize(server, connections)
      @server = server
      @matched = Queue.new
      # One byte for each socket that can be accepted.
      @reading, @writing = IO.pipe
      @threads = Array.new(connections) { Thread.new { hold } }
    end

    def to_io
      @reading
    end

    # Raises IO::WaitReadable if there is no connection now.
    def accept_nonblock(*)
      @reading.read_nonblock(1)
      @matched.pop
    end

    # Deregisters, and waits until the proxy has closed all bridges; false if it has not after +grace+ seconds. Until then the
    # server must go on accepting and serving.
    def leave(grace = Server::GRACE)
      @server.close
      till = CloudBridge.now + grace
      @threads.all? { |thread| thread.join([till - CloudBridge.now, 0].max) }
    end

    # Deregisters. Accepted sockets are the server's.
    def close
      @server.close
    end

    def closed?
      @server.closed?
    end

    private

    # Passes one bridge after another to the server.
    def hold
      loop do
        socket = @server.accept
        line = socket.line if @server.shares_places?
        line&.sets_aside
        pass(socket)
        while line&.set_aside?
          line.again
          pass(Stream.new(line))
        end
      end
    rescue IOError
      # The server is closed.
    end

    # Gives the server a connection, and waits until it has closed it.
    def pass(socket)
      closed = Queue.new
      socket.extend(Watched)
      socket.on_close = -> { closed << true }
      @matched << socket
      @writing << 'x'
      closed.pop
    end
  end
end
