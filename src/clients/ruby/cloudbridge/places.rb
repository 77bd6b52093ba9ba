# frozen_string_literal: true

require_relative '../cloudbridge'
require_relative 'line'

module CloudBridge
  # How many requests a program serves at once, over all its proxies. Each of its Servers has as many bridges as there are
  # places, and tells its proxy how many of them it may use now; a request that crosses such a message is given back to the
  # proxy at once (doc/protocol.md, "Places").
  #
  #     places = CloudBridge::Places.new(8)
  #     servers = %w[a.example.com b.example.com].map { |proxy| CloudBridge::Server.new(proxy, places: places) }
  #
  # A request has its place from its head to the end of its response, and a tunnel until its socket is closed.
  class Places
    # In seconds. A proxy that waits, too, keeps a place that comes free there, unless another has waited longer by more.
    STAYS = 0.014
    # So long a place is kept for the proxy that it is promised to, beyond a round trip, which is reckoned with up to this.
    PROMISED = 0.010
    LONGEST_ROUND_TRIP = 0.250
    # A full proxy is told of a free place when it has been free for so long: one that is taken again at once is not news.
    WINDOW = 0.001
    # A proxy is told that all places are taken when they have been for so long.
    FULL_FOR = 0.002
    # Anything else is told so often at most.
    PAUSE = 0.010
    # How many times in a row what a proxy has said is doubted for twice as long as before.
    DOUBLINGS = 5

    # One of the proxies, and what is known of it.
    class Proxy
      # Its requests that have a place.
      attr_accessor :busy
      # The last limit that it was told, if any, over which bridge, and when.
      attr_accessor :told, :told_over, :said_at
      # What it is to be told, since when, and when it can be tried again after no bridge could take it.
      attr_accessor :news, :news_since, :not_before
      # Since when its oldest request waits, if one is known to.
      attr_accessor :waits_since
      # The shortest time in which it has answered a BRIDGE, in seconds.
      attr_reader :round_trip
      # When the places that are promised to it are taken back, the first first.
      attr_reader :promises
      # Its bridges over which it can be told.
      attr_reader :lines

      def initialize(token)
        @token = token
        @busy = 0
        @at = 0
        @heard = 0
        @said_at = 0.0
        @not_before = 0.0
        @round_trip = LONGEST_ROUND_TRIP
        @promises = []
        @lines = []
        believe
      end

      # It has answered a BRIDGE after so many seconds.
      def answered(after)
        @round_trip = [@round_trip, after].min
      end

      # It has said what waits, or has used a promise.
      def believe
        @doubted_until = 0.0
        @lapses = 0
      end

      # It has not used a promise in time. It may not wait any more, but its `none` may be lost; or it is far away.
      def doubt(now)
        @doubted_until = now + PAUSE * 2**[@lapses, DOUBLINGS].min
        @lapses += 1
      end

      # Whether a place is to be kept for it.
      def waits?(now)
        @waits_since && @doubted_until <= now && @promises.empty?
      end

      # The field that tells it a limit.
      def field(limit)
        @at += 1
        "Cloudbridge-Places: #{limit}; at=#{@at}; by=#{@token}\r\n"
      end

      # Whether what it has said is newer than the last.
      def newer?(said_at)
        said_at > @heard && @heard = said_at
      end

      # The token is not shown.
      def inspect
        "#<#{self.class} busy=#{@busy} told=#{@told.inspect}>"
      end
    end

    # A request that has no place yet and cannot be given back.
    class Turn
      attr_reader :proxy
      attr_accessor :come

      def initialize(proxy)
        @proxy = proxy
        @come = false
      end
    end

    attr_reader :count

    def initialize(count)
      @count = Integer(count)
      raise ArgumentError, 'places are a number above 0' unless @count.positive?

      @lock = Mutex.new
      @changed = ConditionVariable.new
      @turned = ConditionVariable.new
      @proxies = []
      # Those that wait, the first first.
      @turns = []
      @wakes_at = nil
    end

    # One more proxy, with the token of its bridges.
    def proxy(token)
      Proxy.new(token).tap { |proxy| change { @proxies << proxy } }
    end

    # A bridge over which its proxy can be told.
    def opened(line)
      change do
        line.proxy.lines << line
        @teller = Thread.new { tell } unless @teller&.alive?
      end
    end

    def closed(line)
      change do
        proxy = line.proxy
        proxy.lines.delete(line)
        # It may not have arrived.
        proxy.told_over = nil if proxy.told_over.equal?(line)
        forget(proxy) if proxy.lines.empty?
      end
    end

    # A request has come. Returns nil if it has a place now. If not, returns the field that it is given back with, or a Turn if
    # it cannot be.
    def arrive(line, returnable)
      proxy = line.proxy
      change do
        next take(proxy) if limit(proxy) > proxy.busy

        returnable ? given_back(line) : Turn.new(proxy).tap { |turn| @turns << turn }
      end
    end

    # A 101 has come, which takes no place yet. Returns nil if there is a place, and if not the field that it is given back with.
    def announced(line)
      change { given_back(line) unless limit(line.proxy) > line.proxy.busy }
    end

    # Waits until it is its turn. It has a place then.
    def await(turn)
      @lock.synchronize { @turned.wait(@lock) until turn.come }
    end

    # A request of this proxy no longer has its place.
    def over(proxy)
      change do |now|
        proxy.busy -= 1
        keep(proxy, now)
      end
    end

    # The oldest request that waits at this proxy has waited so long, in milliseconds; nil: none waits.
    def waits(proxy, milliseconds, said_at)
      change do |now|
        next unless proxy.newer?(said_at)

        proxy.believe
        milliseconds ? proxy.waits_since = now - milliseconds / 1000.0 : forget(proxy)
      end
    end

    private

    # Everything that changes something goes through here.
    def change
      @lock.synchronize do
        now = CloudBridge.now
        result = yield now
        follow_up(now)
        at = soonest
        @changed.signal if at && (@wakes_at.nil? || at < @wakes_at)
        result
      end
    end

    # What nobody has, and nobody is promised.
    def free
      @count - @proxies.sum { |proxy| proxy.busy + proxy.promises.length }
    end

    # How many requests this proxy may have at once.
    def limit(proxy)
      proxy.busy + [free + proxy.promises.length, 0].max
    end

    def take(proxy)
      proxy.believe if proxy.promises.shift
      proxy.busy += 1
      nil
    end

    # It waits no longer, or cannot be told.
    def forget(proxy)
      proxy.waits_since = nil
      proxy.promises.clear
    end

    # A place has come free here: it stays if a request waits here too. Who waits in the program goes first.
    def keep(proxy, now)
      return unless @turns.empty? && free.positive? && proxy.waits?(now)

      longest = longest_waiting(now)
      promise(proxy, now) if longest && proxy.waits_since - longest.waits_since <= STAYS
    end

    # The proxy that has waited longest, of those that are promised nothing.
    def longest_waiting(now)
      @proxies.select { |proxy| proxy.waits?(now) }.min_by(&:waits_since)
    end

    def promise(proxy, now)
      proxy.promises << now + PROMISED + proxy.round_trip
    end

    # Gives what is free to those that wait, and notes what the proxies must be told.
    def follow_up(now)
      expire(now)
      while (turn = @turns.first) && limit(turn.proxy) > turn.proxy.busy
        take(turn.proxy)
        @turns.shift.come = true
        @turned.broadcast
      end
      while free.positive? && (longest = longest_waiting(now))
        promise(longest, now)
      end
      @proxies.each { |proxy| note(proxy, now) }
    end

    def expire(now)
      @proxies.each do |proxy|
        while proxy.promises.any? && proxy.promises.first <= now
          proxy.promises.shift
          proxy.doubt(now)
        end
      end
    end

    def note(proxy, now)
      news = news(proxy, limit(proxy))
      return if news == proxy.news

      proxy.news = news
      proxy.news_since = now
    end

    # What it is to be told: that there is room again, that there is more or less of it, that it is full, or what was told over a
    # bridge that has ended. nil: nothing, also if it has no place by either number.
    def news(proxy, limit)
      bridges = proxy.lines.length
      return if bridges.zero?
      return :again if proxy.told && !proxy.told_over

      told = proxy.told || bridges
      return if [limit, bridges].min == [told, bridges].min || (told <= proxy.busy && limit <= proxy.busy)
      return limit == proxy.busy ? :full : :less if limit < told

      told <= proxy.busy ? :room : :more
    end

    # When it is to be told; nil if it is not.
    def due(proxy)
      return unless proxy.news

      at =
        if proxy.news == :full then proxy.news_since + FULL_FOR
        elsif proxy.news == :less then lasting(proxy)
        elsif proxy.news == :again || proxy.promises.any? then proxy.news_since
        elsif proxy.news == :room then proxy.news_since + WINDOW
        else lasting(proxy)
        end
      [at, proxy.not_before].max
    end

    # Most of it passes.
    def lasting(proxy)
      [proxy.news_since, proxy.said_at].max + PAUSE
    end

    # When there is something to do next.
    def soonest
      @proxies.flat_map { |proxy| [due(proxy), proxy.promises.first] }.compact.min
    end

    # The thread that tells.
    def tell
      @lock.synchronize do
        loop do
          now = CloudBridge.now
          follow_up(now)
          @proxies.each { |proxy| tell_one(proxy, now) if (at = due(proxy)) && at <= now }
          @wakes_at = soonest
          @changed.wait(@lock, @wakes_at && [@wakes_at - CloudBridge.now, 0].max)
        end
      end
    end

    # Over a bridge that can: one without a request, if there is one, and none, if all of them are in a response.
    def tell_one(proxy, now)
      message = "HTTP/1.1 102 Processing\r\n#{proxy.field(limit(proxy))}\r\n"
      idle, busy = proxy.lines.partition(&:idle?)
      line = idle.find { |one| one.say(message) } || busy.find { |one| one.say(message) }
      line ? told(line, now) : proxy.not_before = now + PAUSE
      note(proxy, now)
    end

    def told(line, now)
      line.proxy.told = limit(line.proxy)
      line.proxy.told_over = line
      line.proxy.said_at = now
    end

    def given_back(line)
      told(line, CloudBridge.now)
      line.proxy.field(line.proxy.told)
    end
  end
end
