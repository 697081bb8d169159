/** Completion in shells: the scripts, and the answers to what they ask (`mutual complete -- WORDS`). */
import tab, { script } from '@bomb.sh/tab';
import { type Command, command, flagName } from './command.ts';
import { commands, resolve } from './commands.ts';
import { meaning } from './parse.ts';

const inShell = (shell: 'bash' | 'zsh' | 'fish' | 'powershell', put: string): Command =>
  command({
    summary: `Print a script that completes commands in ${shell === 'powershell' ? 'PowerShell' : shell}`,
    flags: {},
    examples: [[put, 'Have it in every shell']],
    async run() {
      // The library writes to standard output itself.
      script(shell, 'mutual', 'mutual');
      return 0;
    },
  });

export const bash = inShell('bash', 'mutual completion bash > ~/.local/share/bash-completion/completions/mutual');
export const zsh = inShell('zsh', 'mutual completion zsh > ~/.zfunc/_mutual');
export const fish = inShell('fish', 'mutual completion fish > ~/.config/fish/completions/mutual.fish');
export const powershell = inShell('powershell', 'mutual completion powershell >> $PROFILE');

/** Prints what may follow some words. Only the command they name is loaded. */
export async function complete(words: readonly string[]): Promise<void> {
  const called = resolve(words.slice(0, -1));
  for (const { path, summary } of commands) {
    const parts = path.split(' ');
    for (let depth = 1; depth < parts.length; depth++) {
      const group = parts.slice(0, depth).join(' ');
      if (!tab.commands.has(group)) tab.command(group, `mutual ${group} ...`);
    }
    tab.command(path, summary);
  }
  if (called.kind === 'command') {
    const { flags } = await called.listed.load();
    const completed = tab.commands.get(called.listed.path)!;
    for (const [key, flag] of Object.entries(flags)) {
      const { choices } = flag;
      if (flag.value === undefined || flag.bare) completed.option(flagName(key), meaning(flag));
      else
        completed.option(flagName(key), meaning(flag), (offer) => {
          for (const each of choices ?? []) offer(each, '');
        });
    }
  }
  tab.parse([...words]);
}
