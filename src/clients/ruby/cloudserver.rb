# frozen_string_literal: true

# Programs written for the original library ask for its server under this name.
require_relative 'cloudbridge'
