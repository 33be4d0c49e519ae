# Enough of Homebrew to read the formula and to run its test block. Usage: formula.rb FORMULA SYSTEM PREFIX FOLDER
# SYSTEM is macos-arm64, linux-x86_64 or linux-aarch64. Prints what the formula says for it; with a PREFIX the test
# block runs against the program installed there, in FOLDER.
require "fileutils"
require "json"
require "open3"
require "pathname"

class Formula
  class << self
    attr_reader :said, :tested

    # What says only one thing.
    %i[desc homepage version url sha256].each do |name|
      define_method(name) { |value| (@said ||= {})[name] = value }
    end

    def license(**) = nil
    def depends_on(*) = nil
    def on_macos = SYSTEM.start_with?("macos") && yield
    def on_linux = SYSTEM.start_with?("linux") && yield
    def on_intel = SYSTEM.end_with?("x86_64") && yield
    def on_arm = SYSTEM.end_with?("aarch64", "arm64") && yield
    def test(&block) = @tested = block
  end

  def bin = Pathname(PREFIX) / "bin"
  def testpath = Pathname(FOLDER)
  def version = self.class.said[:version]

  def shell_output(command, status = 0)
    output, ended = Open3.capture2(command)
    raise "#{command}: status #{ended.exitstatus}, not #{status}" if ended.exitstatus != status
    output
  end

  def system(*command)
    Kernel.system(*command.map(&:to_s), out: File::NULL) || raise("#{command.join(" ")} failed")
  end

  def assert_match(expected, actual) = actual.include?(expected) || raise("no #{expected} in #{actual}")
  def assert_equal(expected, actual) = expected == actual || raise("#{actual} is not #{expected}")
end

formula, SYSTEM, PREFIX, FOLDER = ARGV
load formula
puts JSON.generate(MlxCache.said)
MlxCache.new.instance_eval(&MlxCache.tested) if PREFIX
