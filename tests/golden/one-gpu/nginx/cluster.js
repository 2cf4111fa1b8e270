// Made by the controller from config/cluster.yaml. Do not edit: the next change overwrites it.
export default {
  "pools": {
    "qwen3-vl-8b": {
      "names": [
        "qwen3-vl-8b",
        "Qwen/Qwen3-VL-8B-Instruct-FP8"
      ],
      "next": "",
      "domains": [],
      "cache": null
    }
  },
  "auto": [
    {
      "pool": "qwen3-vl-8b",
      "min_images": 0,
      "min_videos": 0,
      "min_text_bytes": 0,
      "reasoning_effort": []
    }
  ],
  "hash_pictures": false
};
