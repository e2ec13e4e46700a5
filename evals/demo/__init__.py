"""The demonstration: stock SGLang and bros under the same mixed load, on any machine."""
