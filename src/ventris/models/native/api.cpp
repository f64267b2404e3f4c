// The C functions that Python calls.
#include "decoder.h"

using namespace ventris;

namespace {

std::shared_ptr<Decoder>& decoder_of(void* handle) { return *(std::shared_ptr<Decoder>*)handle; }

}  // namespace

extern "C" {

const char* ventris_kernel() { return kernel_name(); }

void* ventris_open(const VentrisModel* model) {
  return new std::shared_ptr<Decoder>(std::make_shared<Decoder>(*model));
}

void ventris_close(void* handle) { delete (std::shared_ptr<Decoder>*)handle; }

int64_t ventris_run(void* handle, const int64_t* description, const VentrisBuffers* buffers) {
  std::shared_ptr<Decoder>& decoder = decoder_of(handle);
  Call call;
  if (VentrisStatus status = read_call(description, decoder->sizes, call)) return status;
  Pool& pool = Pool::shared();
  std::lock_guard<std::mutex> guard(pool.calls());
  pool.run(std::make_shared<Run>(decoder, std::move(call), *buffers));
  return kOk;
}

void ventris_head(void* handle, const float* hidden, int64_t rows, float* logits) {
  Call call{};
  call.nodes = rows;
  for (int64_t row = 0; row < rows; ++row) call.wanted.push_back(row);
  VentrisBuffers buffers{};
  buffers.hidden_in = hidden;
  buffers.logits = logits;
  Pool& pool = Pool::shared();
  std::lock_guard<std::mutex> guard(pool.calls());
  pool.run(std::make_shared<Run>(decoder_of(handle), std::move(call), buffers));
}

void ventris_queries(void* handle, int64_t layer, int64_t position, const float* hidden, const VentrisRope* ropes,
                     float* queries) {
  std::lock_guard<std::mutex> guard(Pool::shared().calls());
  compute_queries(*decoder_of(handle), layer, position, hidden, ropes, queries);
}
}
