// A label where everything is text, as `penstock.codecs.values.label_reader` reads it.

#pragma once

#include <cmath>
#include <string>
#include <string_view>

#include "decimal.hpp"
#include "records.hpp"

namespace penstock {

struct Word {
    bool is_missing = true;
    std::string_view text;
};

struct TextLabel {
    Labels labels = Labels::kBinary;
    bool is_required = true;
    std::string negative, positive;  // of kClasses

    // Sets `label`, or `name` of a class; neither if it is missing. Returns whether it can be one.
    bool take(const Word& word, double& label, std::string_view& name) const {
        if (word.is_missing) return !is_required;
        const std::string_view text = word.text;
        switch (labels) {
            case Labels::kMulticlass:
                name = text;
                return !text.empty();
            case Labels::kClasses:
                label = text == positive ? 1.0 : 0.0;
                return text == positive || text == negative;
            case Labels::kRegression: return spelling_of(text, label) == Spelling::kNumber;
            default: break;
        }
        if (text == "true" || text == "True" || text == "TRUE") {
            label = 1.0;
        } else if (text == "false" || text == "False" || text == "FALSE") {
            label = 0.0;
        } else {
            double value;
            if (spelling_of(text, value) != Spelling::kNumber) return false;
            if (std::fabs(value) != 1.0 && value != 0.0) return false;
            label = value == 1.0 ? 1.0 : 0.0;
        }
        return true;
    }
};

}  // namespace penstock
