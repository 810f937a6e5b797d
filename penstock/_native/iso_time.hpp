// Times as most logs write them: 2021-05-18T13:28:29.656Z.

#pragma once

#include <cstdint>
#include <string_view>

namespace penstock {

// Days from 1970-01-01 to a date of the Gregorian calendar (Hinnant, "chrono-compatible low-level date algorithms").
inline int64_t days_to(int64_t year, int64_t month, int64_t day) {
    year -= month <= 2;
    const int64_t era = year / 400, year_of_era = year - era * 400;  // year 0 is the first there can be
    const int64_t day_of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    return era * 146097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719468;
}

inline int64_t days_in(int64_t year, int64_t month) {
    const bool is_leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    if (month == 2) return 28 + is_leap;
    return 30 + ((month + (month > 7)) & 1);
}

// Seconds since the Unix epoch, rounded once, as Python has them; digits behind microseconds are left out, as by
// `datetime.fromisoformat`. Returns whether it is such a time, in UTC; others are left to that.
inline bool read_utc(std::string_view text, double& seconds) {
    constexpr std::string_view shape = "0000-00-00T00:00:00";
    constexpr int64_t most_exact = int64_t{1} << 53;
    if (text.size() <= shape.size() || text.back() != 'Z') return false;
    for (size_t i = 0; i < shape.size(); ++i) {
        if (shape[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != shape[i]) return false;
    }
    auto number_at = [text](size_t first, size_t n) {
        int64_t number = 0;
        for (const char digit : text.substr(first, n)) number = 10 * number + (digit - '0');
        return number;
    };
    const int64_t year = number_at(0, 4), month = number_at(5, 2), day = number_at(8, 2);
    const int64_t hour = number_at(11, 2), minute = number_at(14, 2), second = number_at(17, 2);
    if (year < 1 || month < 1 || month > 12 || day < 1 || day > days_in(year, month)) return false;
    if (hour > 23 || minute > 59 || second > 59) return false;
    int64_t microseconds = 0;
    if (text.size() > shape.size() + 1) {
        const std::string_view fraction = text.substr(shape.size() + 1, text.size() - shape.size() - 2);
        if (text[shape.size()] != '.' || fraction.empty()) return false;
        for (const char digit : fraction) {
            if (digit < '0' || digit > '9') return false;
        }
        for (size_t i = 0; i < 6; ++i) microseconds = 10 * microseconds + (i < fraction.size() ? fraction[i] - '0' : 0);
    }
    const int64_t whole = ((days_to(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    const int64_t total = whole * 1000000 + microseconds;
    seconds = static_cast<double>(total) / 1e6;
    return total > -most_exact && total < most_exact;
}

}  // namespace penstock
