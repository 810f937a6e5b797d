"""Counter-based random numbers: every draw is a function of (seed, decision, arm) and its place in line.

A stream is SplitMix64 (Steele, Lea and Flood 2014), a counter through a mixer, started at a hash of those
three; normals come from a ziggurat of 128 layers (Marsaglia and Tsang 2000, as in Doornik 2005) and gammas
by Marsaglia and Tsang (2000, ACM TOMS 26).
"""

from libc.stdint cimport uint64_t

cdef extern from *:
    """
    #ifndef PENSTOCK_CHANCE
    #define PENSTOCK_CHANCE
    #include <cmath>
    #include <cstdint>

    namespace chance {

    constexpr double R = 3.442619855899;         // where the tail begins
    constexpr double AREA = 9.91256303526217e-3;  // of each layer
    constexpr int LAYERS = 128;

    struct Ziggurat {
        double x[LAYERS + 1], ratio[LAYERS];
        Ziggurat() {
            double f = std::exp(-0.5 * R * R);
            x[0] = AREA / f;
            x[1] = R;
            for (int i = 2; i < LAYERS; i++) {
                x[i] = std::sqrt(-2.0 * std::log(AREA / x[i - 1] + f));
                f = std::exp(-0.5 * x[i] * x[i]);
            }
            x[LAYERS] = 0.0;
            for (int i = 0; i < LAYERS; i++) ratio[i] = x[i + 1] / x[i];
        }
    };
    static const Ziggurat ziggurat;

    static inline uint64_t mix(uint64_t z) {
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
        z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
        return z ^ (z >> 31);
    }

    static inline uint64_t stream(uint64_t seed, uint64_t decision, uint64_t arm) {
        return mix(mix(mix(seed + 0x9E3779B97F4A7C15ull) ^ decision) ^ arm);
    }

    static inline uint64_t word(uint64_t* state) { return mix(*state += 0x9E3779B97F4A7C15ull); }

    // Uniform on (0, 1), never an end.
    static inline double uniform(uint64_t* state) { return ((word(state) >> 11) + 0.5) * 0x1p-53; }

    static inline double normal(uint64_t* state) {
        for (;;) {
            const uint64_t w = word(state);
            const int i = (int)(w & (LAYERS - 1));
            const double u = 2.0 * (((w >> 11) + 0.5) * 0x1p-53) - 1.0;
            if (std::fabs(u) < ziggurat.ratio[i]) return u * ziggurat.x[i];
            if (i == 0) {
                double x, y;
                do {
                    x = std::log(uniform(state)) / R;
                    y = std::log(uniform(state));
                } while (-2.0 * y < x * x);
                return u < 0.0 ? x - R : R - x;
            }
            const double x = u * ziggurat.x[i];
            const double f0 = std::exp(-0.5 * (ziggurat.x[i] * ziggurat.x[i] - x * x));
            const double f1 = std::exp(-0.5 * (ziggurat.x[i + 1] * ziggurat.x[i + 1] - x * x));
            if (f1 + uniform(state) * (f0 - f1) < 1.0) return x;
        }
    }

    // Of unit scale.
    static inline double gamma(uint64_t* state, double shape) {
        double scale = 1.0;
        if (shape < 1.0) {
            scale = std::exp(std::log(uniform(state)) / shape);
            shape += 1.0;
        }
        const double d = shape - 1.0 / 3.0, c = 1.0 / std::sqrt(9.0 * d);
        for (;;) {
            const double x = normal(state);
            double v = 1.0 + c * x;
            if (v <= 0.0) continue;
            v = v * v * v;
            const double u = uniform(state), square = x * x;
            if (u < 1.0 - 0.0331 * square * square) return scale * d * v;  // nearly always, without logarithms
            if (std::log(u) < 0.5 * square + d - d * v + d * std::log(v)) return scale * d * v;
        }
    }

    static inline double beta(uint64_t* state, double a, double b) {
        const double x = gamma(state, a), y = gamma(state, b);
        if (x + y > 0.0) return x / (x + y);
        return uniform(state) * (a + b) < a ? 1.0 : 0.0;  // both underflowed: all mass is at the ends
    }

    }  // namespace chance
    #endif
    """
    uint64_t stream "chance::stream"(uint64_t seed, uint64_t decision, uint64_t arm) noexcept nogil
    uint64_t mix "chance::mix"(uint64_t z) noexcept nogil
    double uniform "chance::uniform"(uint64_t* state) noexcept nogil
    double normal "chance::normal"(uint64_t* state) noexcept nogil
    double gamma "chance::gamma"(uint64_t* state, double shape) noexcept nogil
    double beta "chance::beta"(uint64_t* state, double a, double b) noexcept nogil
