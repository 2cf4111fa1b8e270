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
      "cache": null,
      "image_pixels": 50000000,
      "request_pixels": 200000000,
      "limits": {
        "answers": 8,
        "in_all": 16
      }
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
  "hash_pictures": false,
  "report_cached_tokens": false,
  "max_body_bytes": 67108864,
  "max_client_body_bytes": 671088640,
  "max_all_body_bytes": 1342177280
};
