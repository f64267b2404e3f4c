// A few packed products in a row, outside a decoder: what draft heads are made of.
#include <memory>
#include <vector>

#include "abi.h"
#include "buffer.h"
#include "products.h"
#include "vector_math.h"

namespace ventris {
namespace {

enum class Form : int64_t { plain = 0, residual = 1, halves = 2 };

struct Stage {
  explicit Stage(const VentrisStage& packed) : matrix(packed.matrix), form((Form)packed.form) {}

  // Rows that one row becomes.
  int64_t copies() const { return form == Form::residual ? matrix.rows() / matrix.columns() : 1; }

  Matrix matrix;
  Form form;
};

// The weights and the working memory, which serves one run at a time.
struct Stages {
  explicit Stages(const VentrisStages& packed)
      : sizes(packed), stages(packed.stages, packed.stages + packed.count) {}

  VentrisStages sizes;
  std::vector<Stage> stages;
  Buffer<float> rows[2];     // input of a stage, and of the next one
  Buffer<float> projected;   // what the matrix made of it
  Buffer<uint8_t> inputs;    // the input in the matrix's own format
};

void add_activated(const float* straight, const float* bent, int64_t count, float* to) {
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    store(to + i, load(straight + i) + activate(Activation::silu, load(bent + i)));
  for (; i < count; ++i) to[i] = straight[i] + activate(Activation::silu, splat(bent[i]))[0];
}

class StagesRun : public Job {
 public:
  StagesRun(std::shared_ptr<Stages> stages, const float* in, int64_t rows, float* out)
      : Job((int)stages->sizes.threads), stages_(std::move(stages)), in_(in), count_(rows), out_(out) {
    int64_t dense = count_ * stages_->stages[0].matrix.columns(), projected = 0, inputs = 0, nodes = count_;
    for (const Stage& stage : stages_->stages) {
      inputs = std::max(inputs, stage.matrix.activation_bytes(nodes));
      projected = std::max(projected, nodes * stage.matrix.rows());
      nodes *= stage.copies();
      dense = std::max(dense, nodes * stage.matrix.rows());
    }
    stages_->inputs.reserve(inputs);
    stages_->projected.reserve(projected);
    for (Buffer<float>& rows : stages_->rows) rows.reserve(dense);
  }

  void work(Worker& worker) override {
    const float* input = in_;
    int64_t nodes = count_;
    for (size_t index = 0; index < stages_->stages.size(); ++index) {
      const Stage& stage = stages_->stages[index];
      const bool last = index + 1 == stages_->stages.size();
      if (index == 0 && stages_->sizes.norm) input = norm(worker, input);
      put(worker, stage.matrix, input, nodes);
      float* const next = last ? out_ : stages_->rows[index % 2].data();
      float* const projected = stage.form == Form::plain ? next : stages_->projected.data();
      multiply_into(worker, stage.matrix, stages_->inputs.data(), nodes, projected);
      if (stage.form != Form::plain) combine(worker, stage, input, nodes, next);
      nodes *= stage.copies();
      input = next;
    }
  }

 private:
  const float* norm(Worker& worker, const float* from) {
    const int64_t width = stages_->stages[0].matrix.columns();
    float* const to = stages_->rows[1].data();
    worker.section(count_, count_, [&](int64_t begin, int64_t end) {
      for (int64_t node = begin; node < end; ++node)
        rms_norm(from + node * width, stages_->sizes.norm, stages_->sizes.norm_epsilon, width, to + node * width);
    });
    return to;
  }

  void put(Worker& worker, const Matrix& matrix, const float* from, int64_t nodes) {
    const int64_t width = matrix.columns();
    worker.section(nodes, nodes, [&](int64_t begin, int64_t end) {
      for (int64_t node = begin; node < end; ++node)
        matrix.put_activations(stages_->inputs.data(), node, 0, from + node * width, width);
    });
  }

  void combine(Worker& worker, const Stage& stage, const float* input, int64_t nodes, float* to) {
    const int64_t copies = stage.copies();
    const int64_t rows = stage.matrix.rows(), width = stage.form == Form::halves ? rows / 2 : stage.matrix.columns();
    const float* const projected = stages_->projected.data();
    worker.section(nodes * copies, nodes * copies, [&](int64_t begin, int64_t end) {
      for (int64_t row = begin; row < end; ++row) {
        if (stage.form == Form::halves)
          add_activated(projected + row * rows, projected + row * rows + width, width, to + row * width);
        else
          add_activated(input + row / copies * width, projected + row * width, width, to + row * width);
      }
    });
  }

  const std::shared_ptr<Stages> stages_;
  const float* const in_;
  const int64_t count_;
  float* const out_;
};

}  // namespace
}  // namespace ventris

using namespace ventris;

extern "C" {

void* ventris_open_stages(const VentrisStages* stages) {
  return new std::shared_ptr<Stages>(std::make_shared<Stages>(*stages));
}

void ventris_close_stages(void* handle) { delete (std::shared_ptr<Stages>*)handle; }

void ventris_run_stages(void* handle, const float* in, int64_t rows, float* out) {
  Pool& pool = Pool::shared();
  std::lock_guard<std::mutex> guard(pool.calls());
  pool.run(std::make_shared<StagesRun>(*(std::shared_ptr<Stages>*)handle, in, rows, out));
}
}
