# frozen_string_literal: true

# Rackup, which has it since Rack 3, looks here for `rackup -s cloudbridge`.
require 'rackup/handler'
require_relative '../../cloudbridge/rack_handler'

Rackup::Handler.register(:cloudbridge, CloudBridge::RackHandler)
