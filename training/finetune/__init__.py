"""Fine-tune a checkpoint for a language, a domain or an accent: manifest in, checkpoint out.

    python -m training.finetune --model demo --train train.jsonl --test new=test.jsonl --output out

NeMo's own model, loss, augmentation and data loading do the work; here is what they leave open:

    checkpoint   a NeMo model of a `.nemo` file or the bundled checkpoint; a `.nemo` of it again
    vocabulary   does the tokenizer have the language's letters and tag; new pieces where not
    data         manifests checked whole, tags put into the texts, mixed with the old languages'
    recipe       NeMo's and Lightning's configuration, with defaults for a few hours of speech
    aligned      the loss along the times of words, where the manifests have them
    report       error rates before and after, at the latency deployed, and what was forgotten
"""
