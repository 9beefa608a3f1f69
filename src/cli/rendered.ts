/**
 * Holds the texts of src/cli/help.ts by the words that ask for them. The build puts them here (scripts/bundle.js),
 * because to make them anew loads every declaration, which costs more than to start Node. The sources themselves hold
 * none.
 */
export const rendered: Readonly<Record<string, string>> | undefined = undefined
