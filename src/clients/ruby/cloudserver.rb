# frozen_string_literal: true

# Programs for the original library require its server under this name.
require_relative 'cloudbridge'
