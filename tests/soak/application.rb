# frozen_string_literal: true

# The application of the soak over the Ruby library: what application.py says of /get and /post.
#
#     ruby application.rb JOURNAL HOST PROXY...

require 'zlib'
require_relative '../../src/clients/ruby/cloudbridge'

file, host, *proxies = ARGV
JOURNAL = File.open(file, 'a')
JOURNAL.sync = true

# One connection: request after request.
def serve(socket)
  while (start = socket.gets("\r\n"))
    fields = {}
    until (line = socket.gets("\r\n").chomp).empty?
      name, value = line.split(': ', 2)
      fields[name.downcase] = value
    end
    method, target, = start.split(' ')
    _, what, rest = target.split('/')
    id, query = rest.split('?')
    JOURNAL.write("R #{id} #{method}\n")
    body = socket.read(fields.fetch('content-length', '0').to_i)
    JOURNAL.write("X #{id}\n") if what == 'post'
    sleep(query.to_s[/work=(\d+)/, 1].to_i / 1000.0)
    text = what == 'post' ? format('%s %d:%08x', id, body.bytesize, Zlib.crc32(body)) : id
    socket.write("HTTP/1.1 200 OK\r\nX-Id: #{id}\r\nContent-Length: #{text.bytesize}\r\n\r\n#{text}")
    JOURNAL.write("E #{id}\n")
  end
rescue SystemCallError, IOError, NoMethodError
  nil # the connection has ended
ensure
  socket.close
end

servers = proxies.map do |proxy|
  address, port = proxy.split(':')
  CloudBridge::Server.new(address, port.to_i, [host])
end
trap('TERM') { Thread.new { servers.each(&:close) } }
threads = servers.flat_map do |server|
  Array.new(4) do
    Thread.new do
      while (socket = server.accept)
        serve(socket)
      end
    rescue IOError
      nil # closed
    end
  end
end
threads.each(&:join)
