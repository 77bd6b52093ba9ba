# frozen_string_literal: true

# Rack 2 looks here for `rackup -s cloudbridge`.
require 'rack/handler'
require_relative '../../cloudbridge/rack_handler'

Rack::Handler.register(:cloudbridge, CloudBridge::RackHandler)
