# frozen_string_literal: true

# The application of the tests, as a Ruby program written for the original library.
$LOAD_PATH.unshift("#{ENV.fetch('CLIENTS')}/ruby")
require 'cloudserver'
$stdout.sync = true

def read_body(socket, head)
  return socket.read(head[/^content-length:\s*(\d+)/i, 1].to_i) unless head.match?(/^transfer-encoding:\s*chunked/i)

  body = +''
  until (size = socket.gets.hex).zero?
    body << socket.read(size)
    socket.read(2)
  end
  socket.gets
  body
end

def answer(method, path, head, body)
  case path
  when %r{\A/lines/(\d+)} then Array.new(Regexp.last_match(1).to_i) { |number| format("%015d\n", number) }.join
  when '/forged' then 'forged'
  when '/fields' then head.scan(/^[^:\s]+(?=:)/).map(&:downcase).join(' ')
  when '/wait'
    puts 'waiting'
    $stdin.gets
    'waited'
  else
    method == 'POST' ? body : "#{method} #{path} for #{head[/^host:\s*(\S+)/i, 1]}"
  end
end

# One bridge, request after request.
def serve(socket)
  while (line = socket.gets)
    method, path, = line.split
    head = +''
    head << line until (line = socket.gets).strip.empty?
    if path == '/tunnel'
      socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
      socket.write("#{socket.read} and done")
      break
    end
    body = answer(method, path, head, read_body(socket, head))
    closes = path == '/wait' && !ENV.fetch('PROXIES').include?(',') ? "Connection: close\r\n" : ''
    start = body == 'forged' ? "503 No\r\nCloudbridge-Undelivered: application" : '200 OK'
    socket.write("HTTP/1.1 #{start}\r\nContent-Length: #{body.bytesize}\r\n#{closes}\r\n")
    socket.write(body) unless method == 'HEAD'
    break unless closes.empty?
  end
rescue SystemCallError
  # The proxy has gone.
ensure
  socket.close
end

proxies = ENV.fetch('PROXIES').split(',')
connections = ENV.fetch('CONNECTIONS').to_i
require 'cloudbridge/places' if proxies.length > 1
places = CloudBridge::Places.new(connections) if proxies.length > 1
servers = proxies.map do |proxy|
  host, _, port = proxy.rpartition(':')
  CloudBridge::Server.new(host, port, places: places)
end
trap('TERM') { servers.each(&:close) }
threads = servers.flat_map do |server|
  Array.new(connections) do
    Thread.new do
      while (socket = server.accept)
        serve(socket)
      end
    rescue IOError
      # The server is closed.
    end
  end
end
threads.each(&:join)
puts 'stopped'
