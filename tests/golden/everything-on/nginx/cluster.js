// Made by the controller from config/cluster.yaml. Do not edit: the next change overwrites it.
export default {
  "pools": {
    "qwen3-vl-8b": {
      "names": [
        "qwen3-vl-8b",
        "default",
        "Qwen/Qwen3-VL-8B-Instruct-FP8"
      ],
      "next": "qwen3-vl-4b",
      "domains": [
        "images.example.com"
      ],
      "cache": {
        "shared": false
      }
    },
    "qwen3-vl-4b": {
      "names": [
        "qwen3-vl-4b",
        "Qwen/Qwen3-VL-4B-Instruct-FP8"
      ],
      "next": "cloud",
      "domains": [],
      "cache": null
    },
    "assistant": {
      "names": [
        "assistant",
        "Qwen/Qwen3-VL-2B-Instruct"
      ],
      "next": "",
      "domains": [],
      "cache": null
    },
    "captions": {
      "names": [
        "captions",
        "captioner-2"
      ],
      "next": "",
      "domains": [],
      "cache": null
    },
    "cloud": {
      "names": [
        "cloud",
        "qwen3-vl-235b-a22b-instruct"
      ],
      "next": "",
      "domains": [],
      "cache": null,
      "model": "qwen3-vl-235b-a22b-instruct",
      "host": "api.example.com",
      "key_file": "cloud.key"
    }
  },
  "auto": [
    {
      "pool": "qwen3-vl-8b",
      "min_images": 0,
      "min_videos": 0,
      "min_text_bytes": 20000,
      "reasoning_effort": []
    },
    {
      "pool": "qwen3-vl-4b",
      "min_images": 0,
      "min_videos": 0,
      "min_text_bytes": 0,
      "reasoning_effort": []
    }
  ],
  "hash_pictures": true
};
