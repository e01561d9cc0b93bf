"""What the offline bots answer, in turn."""

LETTERS_PER_S = 16  # of speech
REPLIES = {
    "English": ("Of course. Anything else?", "I have noted that.", "Very good."),
    "Spanish": ("Claro que sí. ¿Algo más?", "Lo he anotado.", "Muy bien."),
    "French": ("Bien sûr. Autre chose ?", "C'est noté.", "Très bien."),
    "Italian": ("Certo. Desidera altro?", "L'ho annotato.", "Molto bene."),
    "Portuguese": ("Claro. Mais alguma coisa?", "Já anotei.", "Muito bem."),
}
