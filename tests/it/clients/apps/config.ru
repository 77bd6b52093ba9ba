# frozen_string_literal: true

# The application of the tests, as a Rack application.
$stdout.sync = true
at_exit { puts 'stopped' }

run(lambda do |env|
  path = env['PATH_INFO']
  status, fields = 200, { 'Content-Type' => 'text/plain' }
  body =
    case path
    when %r{\A/lines/(\d+)} then Array.new(Regexp.last_match(1).to_i) { |number| format("%015d\n", number) }
    when '/unread' then ['not read']
    when '/forged'
      status, fields = 503, fields.merge('Cloudbridge-Undelivered' => 'application')
      ['forged']
    when '/fields' then [(env.keys.grep(/\AHTTP_/) - ['HTTP_VERSION']).map { |name| name[5..].downcase.tr('_', '-') }.join(' ')]
    when '/wait'
      puts 'waiting'
      $stdin.gets
      ['waited']
    else
      env['REQUEST_METHOD'] == 'POST' ? [env['rack.input'].read] : ["#{env['REQUEST_METHOD']} #{path} for #{env['HTTP_HOST']}"]
    end
  [status, fields, body]
end)
