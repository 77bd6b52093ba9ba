# frozen_string_literal: true

Gem::Specification.new do |spec|
  spec.name = 'cloudbridge'
  spec.version = '0.2.0'
  spec.summary = 'Web applications that have no port: they dial a cloudbridge proxy and wait for requests'
  spec.description = 'A server socket whose connections come from a cloudbridge proxy, and a Rack handler that serves ' \
                     'them with Puma. The module itself needs no gems.'
  spec.authors = ['The cloudbridge authors']
  spec.license = 'MIT'
  spec.required_ruby_version = '>= 2.7'
  spec.files = Dir.chdir(__dir__) { Dir['*.rb', '{cloudbridge,rack,rackup}/**/*.rb', 'README.md'] }
  spec.require_paths = ['.']
  spec.metadata = { 'rubygems_mfa_required' => 'true' }
end
