# Written for a tap: brew tap mlx-cache/tap && brew install mlx-cache. Formula/update.sh fills in the
# version and the checksums of a release.
class MlxCache < Formula
  desc "Keep every local AI model once, and run it at once"
  homepage "https://github.com/mlx-cache/mlx-cache"
  version "0.1.0"
  license any_of: ["MIT", "Apache-2.0"]

  on_macos do
    url "https://github.com/mlx-cache/mlx-cache/releases/download/v0.1.0/mlx-cache-0.1.0-source.tar.gz"
    sha256 "0000000000000000000000000000000000000000000000000000000000000000" # source
    depends_on "cmake" => :build
    depends_on "rust" => :build
    # MLX's Metal kernels are compiled by Xcode's metal.
    depends_on xcode: ["15.0", :build]
    depends_on arch: :arm64
    depends_on macos: :sonoma
  end

  on_linux do
    on_intel do
      url "https://github.com/mlx-cache/mlx-cache/releases/download/v0.1.0/mlx-cache-0.1.0-linux-x86_64.tar.gz"
      sha256 "0000000000000000000000000000000000000000000000000000000000000000" # linux-x86_64
    end
    on_arm do
      url "https://github.com/mlx-cache/mlx-cache/releases/download/v0.1.0/mlx-cache-0.1.0-linux-aarch64.tar.gz"
      sha256 "0000000000000000000000000000000000000000000000000000000000000000" # linux-aarch64
    end
  end

  def install
    if OS.mac?
      system "cargo", "install", *std_cargo_args
      bash_completion.install "completions/mlx-cache.bash" => "mlx-cache"
      zsh_completion.install "completions/_mlx-cache"
      fish_completion.install "completions/mlx-cache.fish"
      man1.install Dir["man/*.1"]
    else
      # The program finds its libraries relative to itself: it is taken as it is.
      prefix.install "bin", "lib", "share"
    end
  end

  test do
    ENV["MLX_CACHE_HOME"] = (testpath/"store").to_s
    ENV["MLX_CACHE_OFFLINE"] = "1"
    assert_match version.to_s, shell_output("#{bin}/mlx-cache --version")

    # A model of one weight: a header of eight bytes' length, the header, the weight.
    header = '{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    model = testpath/"model"
    model.mkpath
    (model/"config.json").write '{"model_type": "test"}'
    (model/"model.safetensors").binwrite [header.bytesize].pack("Q<") + header + [1.0].pack("e")

    system bin/"mlx-cache", "add", model, "--copy", "--name", "test/one"
    listed = JSON.parse(shell_output("#{bin}/mlx-cache list --json"))
    assert_equal ["test/one"], listed["data"]["models"].map { |it| it["reference"] }
    system bin/"mlx-cache", "verify", "test/one"

    blob = Dir[testpath/"store/blobs/sha256/*/*"].max_by { |path| File.size(path) }
    File.chmod 0644, blob
    File.binwrite blob, "x", 70
    shell_output("#{bin}/mlx-cache verify test/one", 4)
  end
end
