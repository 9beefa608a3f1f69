/**
 * The texts of src/cli/help.ts as the build found them, by the words that ask for them. The build puts them here
 * (scripts/lean.js), for making them anew loads every declaration there is, which costs more than starting Node.
 * Sources that nobody built have none.
 */
export const rendered: Readonly<Record<string, string>> | undefined = undefined
